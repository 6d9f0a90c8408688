//! A TCP proxy between master and slave that breaks the link on demand.
//!
//! Faults fall at byte counts of a direction, counted over all connections; random ones are drawn from a seed,
//! so the same traffic meets the same faults. One thread accepts, four a connection forward.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::rng::Rng;

/// Forwarded at once, at most.
const BUFFER_BYTES: usize = 16 << 10;
/// Pieces that wait between reading and sending, at most.
const PIECES_MAX: usize = 64;
/// How often a waiting thread looks whether it should end.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the master, which dials, to the slave.
    ToSlave,
    /// From the slave back.
    ToMaster,
}

/// What happens at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The bytes before it arrive, then both ends see a close.
    Cut,
    /// The bytes before it arrive, then both ends see a reset.
    Reset,
    /// One bit of it changes.
    Flip,
    /// It and up to this many bytes after it come twice.
    Duplicate(usize),
}

/// A fault that waits for its byte.
#[derive(Clone, Copy, Debug)]
struct Pending {
    direction: Direction,
    at: u64,
    fault: Fault,
}

/// Faults that come again and again.
#[derive(Clone, Debug)]
struct Random {
    direction: Direction,
    mean_bytes: u64,
    faults: Vec<Fault>,
}

#[derive(Debug)]
struct Settings {
    stalled: bool,
    delay: Duration,
    bytes_per_second: Option<u64>,
    pending: Vec<Pending>,
    random: Vec<Random>,
    forwarded: [u64; 2],
    rng: Rng,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    stop: AtomicBool,
    fired: AtomicU64,
    settings: Mutex<Settings>,
    connections: Mutex<Vec<Arc<Connection>>>,
}

/// Both ends of one connection. The sockets close when both pumps and the list have dropped it.
#[derive(Debug)]
struct Connection {
    client: TcpStream,
    server: TcpStream,
    reset: AtomicBool,
}

/// A running proxy; dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `upstream`.
    pub fn start(upstream: SocketAddr, seed: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("bind the proxy")?;
        listener.set_nonblocking(true).context("unblock the proxy")?;
        let address = listener.local_addr().context("read the proxy's port")?;
        let settings = Settings {
            stalled: false,
            delay: Duration::ZERO,
            bytes_per_second: None,
            pending: Vec::new(),
            random: Vec::new(),
            forwarded: [0; 2],
            rng: Rng::new(seed),
        };
        let shared = Arc::new(Shared {
            upstream,
            stop: AtomicBool::new(false),
            fired: AtomicU64::new(0),
            settings: Mutex::new(settings),
            connections: Mutex::new(Vec::new()),
        });
        let inner = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept_all(&listener, &inner)));
        Ok(Self { address, shared, acceptor })
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of faults that have happened.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// Bytes forwarded in `direction`.
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.shared.settings().forwarded[direction as usize]
    }

    /// Forwards nothing, but keeps every connection open and accepts more: a half-open link.
    pub fn stall(&self, stalled: bool) {
        self.shared.settings().stalled = stalled;
    }

    /// Every byte arrives so much later; the rate stays.
    pub fn delay(&self, delay: Duration) {
        self.shared.settings().delay = delay;
    }

    /// Forwards so much a second in each direction of each connection.
    pub fn limit_rate(&self, bytes_per_second: Option<u64>) {
        self.shared.settings().bytes_per_second = bytes_per_second;
    }

    /// Lets `fault` happen once, after so many more bytes in `direction`.
    pub fn inject(&self, direction: Direction, after_bytes: u64, fault: Fault) {
        let mut settings = self.shared.settings();
        let at = settings.forwarded[direction as usize] + after_bytes;
        settings.pending.push(Pending { direction, at, fault });
    }

    /// Lets one of `faults` happen again and again, every `mean_bytes` on average.
    pub fn inject_randomly(&self, direction: Direction, mean_bytes: u64, faults: &[Fault]) {
        let random = Random { direction, mean_bytes, faults: faults.to_vec() };
        let mut settings = self.shared.settings();
        let from = settings.forwarded[direction as usize];
        settings.schedule(&random, from);
        settings.random.push(random);
    }

    /// From here on the link is a good one.
    pub fn calm(&self) {
        let mut settings = self.shared.settings();
        settings.stalled = false;
        settings.delay = Duration::ZERO;
        settings.bytes_per_second = None;
        settings.pending.clear();
        settings.random.clear();
    }

    /// Closes all connections now; new ones are accepted.
    pub fn cut(&self) {
        self.shared.close_all(false);
    }

    /// Resets all connections now; new ones are accepted.
    pub fn reset(&self) {
        self.shared.close_all(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.close_all(false);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in there was printed already.
            let _ = acceptor.join();
        }
        self.shared.close_all(false);
    }
}

impl Settings {
    /// The next of random faults, some bytes behind `from`.
    fn schedule(&mut self, random: &Random, from: u64) {
        let at = from + 1 + self.rng.below(random.mean_bytes * 2);
        let fault = *self.rng.pick(&random.faults);
        self.pending.push(Pending { direction: random.direction, at, fault });
    }

    /// Takes the first fault that falls into the next `len` bytes of `direction`.
    fn take_fault(&mut self, direction: Direction, len: usize) -> Option<(usize, Fault)> {
        let from = self.forwarded[direction as usize];
        let due = |pending: &Pending| pending.direction == direction && pending.at < from + len as u64;
        let first = self.pending.iter().enumerate().filter(|(_, pending)| due(pending));
        let index = first.min_by_key(|(_, pending)| pending.at)?.0;
        let pending = self.pending.swap_remove(index);
        for random in self.random.clone() {
            if random.direction == direction && random.faults.contains(&pending.fault) {
                self.schedule(&random, pending.at);
            }
        }
        let offset = usize::try_from(pending.at.saturating_sub(from)).expect("fit an offset into usize");
        Some((offset, pending.fault))
    }
}

impl Shared {
    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().expect("lock the proxy's settings")
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn connections(&self) -> MutexGuard<'_, Vec<Arc<Connection>>> {
        self.connections.lock().expect("lock the connections")
    }

    fn close_all(&self, reset: bool) {
        let connections = std::mem::take(&mut *self.connections());
        connections.iter().for_each(|connection| connection.close(reset));
    }
}

impl Connection {
    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::ToSlave => (&self.client, &self.server),
            Direction::ToMaster => (&self.server, &self.client),
        }
    }

    /// Either end may be closed already: errors mean nothing here.
    fn close(&self, reset: bool) {
        let reset = self.reset.fetch_or(reset, Ordering::SeqCst) || reset;
        for stream in [&self.client, &self.server] {
            if reset {
                // The reset goes out when the socket closes; until then only our own reads end.
                let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
                let _ = stream.shutdown(Shutdown::Read);
            } else {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((client, _)) => {
                // The slave may be down: the master then sees its connection close, and dials again.
                if let Err(error) = connect(client, shared)
                    && error.kind() != ErrorKind::ConnectionRefused
                {
                    eprintln!("proxy to {}: {error}", shared.upstream);
                }
            }
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}

fn connect(client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect(shared.upstream)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_INTERVAL * 4))?;
    }
    let connection = Arc::new(Connection { client, server, reset: AtomicBool::new(false) });
    shared.connections().push(Arc::clone(&connection));
    for direction in [Direction::ToSlave, Direction::ToMaster] {
        let (connection, shared) = (Arc::clone(&connection), Arc::clone(shared));
        std::thread::spawn(move || {
            let reset = pump(&connection, direction, &shared);
            connection.close(reset);
            shared.connections().retain(|other| !Arc::ptr_eq(other, &connection));
        });
    }
    Ok(())
}

/// Forwards until either end closes; true when both are to see a reset.
fn pump(connection: &Connection, direction: Direction, shared: &Shared) -> bool {
    let (from, mut to) = connection.ends(direction);
    let (sender, receiver) = sync_channel(PIECES_MAX);
    std::thread::scope(|scope| {
        scope.spawn(move || read_pieces(from, &sender, shared));
        let mut outcome = None;
        for (due, bytes) in receiver {
            hold(shared, due, bytes.len());
            match forward(&mut to, bytes, direction, shared) {
                Ok(None) => {}
                Ok(Some(fault)) => outcome = Some(fault == Fault::Reset),
                Err(_) => outcome = Some(false),
            }
            if outcome.is_some() {
                break;
            }
        }
        // The reader ends with the connection.
        let reset = outcome.unwrap_or(false);
        connection.close(reset);
        reset
    })
}

/// Reads until the end and says of each piece when it may go on.
fn read_pieces(mut from: &TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, shared: &Shared) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while !shared.stopped() {
        let (rate, delay) = {
            let settings = shared.settings();
            (settings.bytes_per_second, settings.delay)
        };
        let limit = rate.map_or(BUFFER_BYTES as u64, |rate| rate / 50 + 1);
        let limit = usize::try_from(limit).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
        let len = match from.read(&mut buffer[..limit]) {
            Ok(0) => return,
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        if sender.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
            return;
        }
    }
}

/// Waits as long as delay, rate and stall ask for.
fn hold(shared: &Shared, due: Instant, len: usize) {
    let rate = shared.settings().bytes_per_second;
    let slow =
        rate.map_or(Duration::ZERO, |rate| Duration::from_micros(len as u64 * 1_000_000 / rate.max(1)));
    std::thread::sleep(due.saturating_duration_since(Instant::now()) + slow);
    while shared.settings().stalled && !shared.stopped() {
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Sends `bytes` with the faults that fall into them; gives the one that ends the connection.
fn forward(
    to: &mut &TcpStream,
    mut bytes: Vec<u8>,
    direction: Direction,
    shared: &Shared,
) -> std::io::Result<Option<Fault>> {
    let len = bytes.len();
    let mut ends = None;
    loop {
        // How the bytes come in pieces must not matter: a seed means the same faults each time.
        let fault = shared.settings().take_fault(direction, len);
        let Some((offset, fault)) = fault else { break };
        shared.fired.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Cut | Fault::Reset => {
                bytes.truncate(offset);
                ends = Some(fault);
                break;
            }
            Fault::Flip => bytes[offset] ^= 1,
            Fault::Duplicate(count) => {
                let twice = bytes[offset..(offset + count.max(1)).min(len)].to_vec();
                bytes.splice(offset..offset, twice);
                break;
            }
        }
    }
    to.write_all(&bytes)?;
    shared.settings().forwarded[direction as usize] += len as u64;
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::{Direction, Fault, Proxy};
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// Sends `bytes` through a proxy prepared by `prepare`, and gives what arrives until the close.
    fn through(bytes: Vec<u8>, prepare: impl FnOnce(&Proxy)) -> (Vec<u8>, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), 7).unwrap();
        prepare(&proxy);
        let address = proxy.address();
        let sender = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // A cut in the middle makes this fail, as it should.
            let _ = stream.write_all(&bytes);
        });
        let mut arrived = Vec::new();
        let _ = listener.accept().unwrap().0.read_to_end(&mut arrived);
        sender.join().unwrap();
        (arrived, proxy.fired())
    }

    fn pattern(len: usize) -> Vec<u8> {
        crate::Rng::new(1).bytes(len)
    }

    #[test]
    fn a_good_link_changes_nothing() {
        assert_eq!(through(pattern(1 << 20), |_| {}), (pattern(1 << 20), 0));
    }

    #[test]
    fn faults_fall_where_they_were_put() {
        let (arrived, fired) = through(pattern(50_000), |proxy| {
            proxy.inject(Direction::ToSlave, 40_000, Fault::Cut);
        });
        assert_eq!((arrived.as_slice(), fired), (&pattern(50_000)[..40_000], 1));
        let (arrived, _) = through(pattern(50_000), |proxy| {
            proxy.inject(Direction::ToSlave, 123, Fault::Flip);
        });
        let changed: Vec<usize> = (0..50_000).filter(|at| arrived[*at] != pattern(50_000)[*at]).collect();
        assert_eq!(changed, [123]);
        let (arrived, _) = through(pattern(500), |proxy| {
            proxy.inject(Direction::ToSlave, 100, Fault::Duplicate(50));
        });
        assert_eq!(arrived, [&pattern(500)[..150], &pattern(500)[100..]].concat());
    }

    #[test]
    fn a_reset_is_no_close() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), 7).unwrap();
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        proxy.reset();
        for stream in [&mut client, &mut server] {
            assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn random_faults_are_the_same_each_time() {
        let run = || {
            through(pattern(200_000), |proxy| {
                proxy.inject_randomly(Direction::ToSlave, 40_000, &[Fault::Flip]);
            })
        };
        let (first, fired) = run();
        assert!(fired > 0);
        assert_eq!(first.len(), 200_000);
        assert_eq!(first, run().0);
    }

    #[test]
    fn a_rate_and_a_delay_hold_bytes_up() {
        let start = Instant::now();
        through(pattern(20_000), |proxy| proxy.limit_rate(Some(40_000)));
        assert!(start.elapsed() > Duration::from_millis(400), "{:?}", start.elapsed());
        let start = Instant::now();
        through(pattern(10), |proxy| proxy.delay(Duration::from_millis(200)));
        assert!(start.elapsed() > Duration::from_millis(200), "{:?}", start.elapsed());
    }
}
