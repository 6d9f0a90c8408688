//! The master's session of one slave.

use super::super::{Script, message::check_text};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_wire::answer::{Answer, Found, Want};
use tdfs_wire::frame::Codec;
use tdfs_wire::message::{Branch, MasterMessage, Message, Order, SlaveMessage};
use tdfs_wire::session::WANTS_MAX;
use tdfs_wire::session::master::{Config, Input, Known, Output, Session};
use tdfs_wire::{Epoch, Frame, Id, Lsn};

struct Shell {
    session: Session,
    now: Instant,
    permit: bool,
    dialling: bool,
    connected: bool,
    head: Lsn,
    /// Records that were asked for.
    due: Option<(Lsn, Lsn)>,
    asked: VecDeque<(u64, Want)>,
}

pub fn play(mut script: Script<'_>) {
    let now = Instant::now();
    let epoch = Epoch { number: 1, id: Id([2; 16]) };
    let config = Config {
        software: "test".into(),
        filesystem: Id([1; 16]),
        lineage: vec![Branch { epoch, from: None }],
        jitter_seed: 1,
    };
    let known = Known { check_due: script.byte() % 2 == 1, ..Known::default() };
    let mut shell = Shell {
        session: Session::new(config, known, now),
        now,
        permit: false,
        dialling: false,
        connected: false,
        head: Lsn::ZERO,
        due: None,
        asked: VecDeque::new(),
    };
    shell.tell(Input::Order(Order::Verify { id: 7, repair: false }));
    while !script.is_over() && !shell.session.is_ended() {
        if let Some(input) = shell.step(&mut script) {
            shell.tell(input);
        }
    }
}

impl Shell {
    fn step(&mut self, script: &mut Script<'_>) -> Option<Input> {
        Some(match script.byte() % 16 {
            0..=4 if self.connected => Input::Received(SlaveMessage::parse(script.string()).ok()?),
            5 if std::mem::take(&mut self.dialling) => {
                (self.connected, self.permit) = (true, true);
                Input::Dialled
            }
            6 => {
                self.head = self.head.plus(script.byte().into());
                Input::Log { head: self.head, oldest: Lsn::new(1 + u64::from(script.byte()) % 4) }
            }
            7 => {
                let (after, up_to) = self.due.take()?;
                Input::Sent(after.plus(1 + u64::from(script.byte()) % up_to.since(after)))
            }
            8 => {
                let (connection, want) = self.asked.pop_front()?;
                Input::Answered { connection, as_of: self.head, frame: gone(&want, self.head) }
            }
            9 if self.connected && !self.permit && self.due.is_none() => {
                self.permit = true;
                Input::Writable
            }
            10 if self.connected => {
                self.connected = false;
                Input::Lost("gone".into())
            }
            11 => match script.byte() % 4 {
                0 => Input::Resync { checksum: true },
                1 => Input::Order(Order::Confirm),
                2 => Input::MasterDurable(self.head),
                _ => Input::Met { trail: None, is_foreign: script.byte().is_multiple_of(4) },
            },
            _ => {
                self.now += Duration::from_millis(u64::from(script.byte()) * 20);
                Input::Tick { time_ns: 5 }
            }
        })
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(input, self.now);
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            outputs += 1;
            assert!(outputs < 16, "one input moves little");
            self.perform(output);
        }
        let progress = self.session.progress();
        assert!(progress.durable <= progress.applied && progress.applied <= progress.received);
        assert!(progress.received <= progress.sent.max(self.head));
        assert!(self.session.answers_waiting() <= WANTS_MAX, "answers are bounded by wants");
        let view = self.session.view();
        view.not_carried.iter().chain(&view.last_error).for_each(|text| {
            assert!(!text.contains(char::is_control), "{text:?}");
        });
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Dial => {
                assert!(!self.connected);
                self.dialling = true;
            }
            Output::Hangup(_) => {
                (self.connected, self.permit, self.due) = (false, false, None);
            }
            Output::Send(message) => {
                self.use_permit();
                if let MasterMessage::Bye(why) = &message {
                    check_text(why);
                }
                message.frame().expect("within the limit");
            }
            Output::SendAnswer(_) => self.use_permit(),
            Output::Records { after, up_to } => {
                self.use_permit();
                assert!(after < up_to && up_to <= self.head, "records that are there");
                self.due = Some((after, up_to));
            }
            Output::Ask { connection, want } => {
                want.check().expect("what is asked of the tree was checked");
                self.asked.push_back((connection, want));
            }
            Output::Found(_) => {}
        }
    }

    fn use_permit(&mut self) {
        assert!(self.connected && std::mem::take(&mut self.permit), "one frame for one permit");
    }
}

fn gone(want: &Want, as_of: Lsn) -> Arc<Frame> {
    let answer = Answer { id: want.id, path: want.path.clone(), found: Found::Gone };
    Arc::new(answer.frame(as_of, &[], Codec::Stored).expect("a small answer"))
}
