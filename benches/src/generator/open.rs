//! An open loop: requests have planned send times, independent of earlier responses, like
//! requests of independent readers. Latency counts from the planned time, so that a stall
//! of the service appears in the latencies of all requests that were due meanwhile.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};

use super::connection::Connection;
use super::{Load, Outcome, RESPONSE_TIMEOUT, Script, classify};

/// Longest sleep between two polls. The kernel polls in whole milliseconds, so shorter
/// waits are slept.
const MAX_SLEEP: Duration = Duration::from_micros(100);

/// Connections that are opened without a pause.
const CONNECT_BATCH: usize = 32;

/// Pause after each batch of connections. A connection that exceeds the backlog of the
/// listener is delayed by a second.
const CONNECT_PAUSE: Duration = Duration::from_millis(3);

/// The planned send times of requests.
#[derive(Clone, Copy)]
pub struct Arrivals {
    pub count: u32,
    /// The time over which the requests are spread evenly.
    pub within: Duration,
    /// Longest wait of a request for a free connection. After that, it is not sent, like a
    /// request of an app that cannot connect.
    pub max_wait: Duration,
}

impl Arrivals {
    fn at(&self, n: u32) -> Duration {
        self.within.mul_f64(f64::from(n) / f64::from(self.count))
    }
}

/// Runs a script over `connections` connections in one thread.
pub fn run<S: Script>(
    address: SocketAddr,
    script: &mut S,
    connections: usize,
    arrivals: Arrivals,
) -> anyhow::Result<Load> {
    tokio::task::block_in_place(|| {
        let mut open = Open::new(address, script, connections)?;
        open.run(arrivals)?;
        open.load.sort();
        Ok(open.load)
    })
}

struct Open<'a, S> {
    address: SocketAddr,
    script: &'a mut S,
    poll: Poll,
    lanes: Vec<Lane>,
    free: VecDeque<usize>,
    load: Load,
}

/// A connection, and the planned send time of the request in flight, if any.
struct Lane {
    connection: Connection,
    due: Option<Instant>,
}

impl<'a, S: Script> Open<'a, S> {
    fn new(address: SocketAddr, script: &'a mut S, connections: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut lanes = Vec::with_capacity(connections);
        for n in 0..connections {
            if n % CONNECT_BATCH == CONNECT_BATCH - 1 {
                std::thread::sleep(CONNECT_PAUSE);
            }
            lanes.push(Lane {
                connection: Connection::open(address, poll.registry(), Token(n))?,
                due: None,
            });
        }
        Ok(Self {
            address,
            script,
            poll,
            lanes,
            free: (0..connections).collect(),
            load: Load::default(),
        })
    }

    fn run(&mut self, arrivals: Arrivals) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(self.lanes.len());
        let started = Instant::now();
        let last = started + arrivals.within + RESPONSE_TIMEOUT;
        let mut waiting = VecDeque::new();
        let mut due = 0;
        loop {
            let now = Instant::now();
            while due < arrivals.count && started + arrivals.at(due) <= now {
                waiting.push_back(started + arrivals.at(due));
                due += 1;
            }
            self.send(&mut waiting, arrivals.max_wait)?;
            let in_flight = self.lanes.len() - self.free.len();
            let all_due = due == arrivals.count;
            if all_due && waiting.is_empty() && in_flight == 0 {
                break;
            }
            if now > last {
                self.load.failed += in_flight;
                self.load.unsent += waiting.len();
                break;
            }
            // Waiting requests need a free connection, so only new ones set the time.
            let next = if all_due {
                now + Duration::from_millis(50)
            } else {
                started + arrivals.at(due)
            };
            self.wait(&mut events, next)?;
        }
        self.load.offered = arrivals.count as usize;
        self.load.elapsed = started.elapsed();
        Ok(())
    }

    /// Sends waiting requests over free connections. Drops requests that have waited too
    /// long.
    fn send(&mut self, waiting: &mut VecDeque<Instant>, max_wait: Duration) -> anyhow::Result<()> {
        while let Some(due) = waiting.front().copied() {
            if due.elapsed() > max_wait {
                waiting.pop_front();
                self.load.unsent += 1;
                continue;
            }
            let Some(n) = self.free.pop_front() else {
                break;
            };
            waiting.pop_front();
            let request = self
                .script
                .next(0)
                .context("the script of an open loop has ended")?;
            let lane = &mut self.lanes[n];
            lane.due = Some(due);
            if lane.connection.send(request).is_err() {
                self.finish(n, Outcome::Failed);
                self.reconnect(n)?;
            }
        }
        Ok(())
    }

    /// Waits until the next request is due or responses have arrived, and records those.
    fn wait(&mut self, events: &mut Events, next: Instant) -> anyhow::Result<()> {
        let rest = next.saturating_duration_since(Instant::now());
        let whole = Duration::from_millis(u64::try_from(rest.as_millis())?);
        self.poll.poll(events, Some(whole))?;
        if events.is_empty() && whole.is_zero() && !rest.is_zero() {
            std::thread::sleep(rest.min(MAX_SLEEP));
        }
        for event in &*events {
            let Token(n) = event.token();
            if self.lanes[n].due.is_none() {
                continue;
            }
            let outcome = match self.lanes[n].connection.receive() {
                Ok(None) => continue,
                Ok(Some(response)) => classify(&*self.script, &response),
                Err(_) => {
                    self.reconnect(n)?;
                    Outcome::Failed
                }
            };
            self.finish(n, outcome);
        }
        Ok(())
    }

    /// Records the outcome of a request and frees its connection.
    fn finish(&mut self, n: usize, outcome: Outcome) {
        if let Some(due) = self.lanes[n].due.take() {
            self.load.record(due.elapsed(), outcome);
            self.free.push_back(n);
        }
    }

    fn reconnect(&mut self, n: usize) -> anyhow::Result<()> {
        let registry = self.poll.registry();
        self.lanes[n].connection = Connection::open(self.address, registry, Token(n))?;
        Ok(())
    }
}
