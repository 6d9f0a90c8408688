//! The slave's session of one connection.

use super::super::{
    Script,
    message::{check_path, check_text},
};
use std::time::{Duration, Instant};
use tdfs_wire::answer::{Answer, Want, Wanted};
use tdfs_wire::message::{
    Check, Difference, Finding, MasterMessage, Message, Report, SlaveMessage, Standing,
};
use tdfs_wire::session::slave::{Config, Input, Output, Replica, Session, check_records};
use tdfs_wire::{Epoch, Id, Lsn, Position, TreePath};

struct Shell {
    session: Session,
    now: Instant,
    permit: bool,
    /// The replica was asked for, and is not taken yet.
    taking: bool,
    /// `Begin` was handed to it, and it did not say how it likes that.
    beginning: bool,
    begun: bool,
    ended: bool,
    /// What came last can be delivered: with the last record that it holds.
    in_hand: Option<Lsn>,
    delivered: Lsn,
}

pub fn play(mut script: Script<'_>) {
    let now = Instant::now();
    let filesystem = (script.byte() % 2 == 1).then_some(Id([1; 16]));
    let config = Config { software: "test".into(), filesystem };
    let mut shell = Shell {
        session: Session::new(config, now),
        now,
        permit: true,
        taking: false,
        beginning: false,
        begun: false,
        ended: false,
        in_hand: None,
        delivered: Lsn::ZERO,
    };
    while !script.is_over() && !shell.ended {
        if let Some(input) = shell.step(&mut script) {
            shell.tell(input);
        }
    }
}

impl Shell {
    fn step(&mut self, script: &mut Script<'_>) -> Option<Input> {
        self.in_hand = None;
        let number = |script: &mut Script<'_>| Lsn::new(script.u64() / 2);
        Some(match script.byte() % 16 {
            0..=2 => Input::Received(MasterMessage::parse(script.string()).ok()?),
            3 => {
                let (first, count) = (Lsn::try_from(script.u64()).ok()?, u32::from(script.u16()));
                // Headers of frames have a record at least.
                if first == Lsn::ZERO || count == 0 {
                    return None;
                }
                if script.byte().is_multiple_of(4) {
                    // What passes is whole; the session has to see the numbers all the same.
                    check_records(script.string(), first, count).ok()?;
                }
                self.in_hand = Some(first.plus(count.into()).prev());
                Input::RecordsIn { first, count }
            }
            4 => {
                let as_of = Lsn::try_from(script.u64()).ok()?;
                if let Ok((answer, _)) = Answer::parse(script.string()) {
                    check_path(&answer.path);
                }
                self.in_hand = Some(self.delivered);
                Input::AnswerIn { as_of }
            }
            5 if std::mem::take(&mut self.taking) => Input::Taken(replica(script)),
            6 if std::mem::take(&mut self.beginning) => {
                Input::Began(if script.byte().is_multiple_of(4) { Err("no \u{1b}".into()) } else { Ok(()) })
            }
            7 => Input::Applied(number(script)),
            8 => Input::Durable(number(script)),
            9 => Input::Reported(Report {
                stalled: Some("\u{7}".repeat(script.u16().into())),
                ..Report::default()
            }),
            10 => Input::Want(Want {
                id: script.u64(),
                path: TreePath::root(),
                what: Wanted::Listing { after: None },
            }),
            11 => {
                let path = TreePath::root();
                Input::Found(Finding::Difference { verify: 1, path, what: Difference::Extra })
            }
            12 if !self.permit => {
                self.permit = true;
                Input::Writable
            }
            13 => match script.byte() % 5 {
                0 => Input::Paused,
                1 => Input::Resumed,
                2 => Input::Heard,
                3 => Input::Unreadable("another version".into()),
                _ => Input::Stop("it ends".into()),
            },
            _ => {
                self.now += Duration::from_millis(u64::from(script.byte()) * 20);
                Input::Tick
            }
        })
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(input, self.now);
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            assert!(!self.ended, "nothing follows the end");
            outputs += 1;
            assert!(outputs < 16, "one input moves little");
            self.perform(output);
        }
        if let Some((_, ack)) = self.session.progress() {
            assert!(ack.durable <= ack.applied && ack.applied <= ack.received);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Take => self.taking = true,
            Output::Begin { begin, .. } => {
                assert!(!self.begun, "a stream begins once");
                (self.begun, self.beginning, self.delivered) = (true, true, begin.after);
            }
            Output::Deliver => {
                assert!(self.begun, "nothing is delivered before the stream begins");
                let last = self.in_hand.take().expect("what is delivered came");
                assert!(last >= self.delivered);
                self.delivered = last;
            }
            Output::Lost(_) | Output::Order(_) => assert!(self.begun),
            Output::Send(message) => {
                assert!(std::mem::take(&mut self.permit), "one message for one permit");
                self.check_sent(message);
            }
            Output::Hangup(why) => {
                assert!(!why.why().contains('\u{1b}') || why.why() == "no \u{1b}", "{why:?}");
                self.ended = true;
            }
        }
    }

    fn check_sent(&self, message: SlaveMessage) {
        match &message {
            SlaveMessage::Ack(ack) => assert!(ack.received <= self.delivered, "what is acked came"),
            SlaveMessage::Refuse(why) | SlaveMessage::Bye(why) => check_text(why),
            SlaveMessage::Report(report) => report.stalled.iter().for_each(|text| check_text(text)),
            _ => {}
        }
        let frame = message.frame().expect("within the limit");
        assert_eq!(SlaveMessage::parse(frame.payload()).expect("our own message"), message);
    }
}

fn replica(script: &mut Script<'_>) -> Replica {
    let epoch = Epoch { number: 1, id: Id([2; 16]) };
    let applied = Position { epoch, lsn: Lsn::new(script.u16().into()) };
    let standing = match script.byte() % 4 {
        0 => Standing::New,
        1 => Standing::Equal { applied, durable: Lsn::ZERO },
        2 => Standing::Resyncing { applied, resumable: true },
        _ => Standing::InDoubt { since: applied },
    };
    Replica {
        filesystem: (script.byte() % 2 == 1).then_some(Id([1; 16])),
        replica: Id([3; 16]),
        standing,
        checksum: None,
        not_carried: vec!["owners".into()],
        check: Check::None,
    }
}
