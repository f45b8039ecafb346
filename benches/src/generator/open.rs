//! An open loop: requests come at times that are fixed before, whether those
//! before them are answered or not, as those of readers who do not know of each
//! other. A latency is measured from the time at which a request was to be
//! sent, so that a service that stands still does not keep the load from
//! seeing it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};

use super::connection::Connection;
use super::{Load, PATIENCE, Script, Verdict, judge};

/// The kernel's wait has whole milliseconds; what is left is slept in parts of
/// this, between looks at the connections.
const NAP: Duration = Duration::from_micros(100);

/// Connections that are made at once, and the time to accept them: who outruns
/// the backlog of a listener waits for a second.
const TOGETHER: usize = 32;
const ACCEPTED: Duration = Duration::from_millis(3);

/// When requests come.
#[derive(Clone, Copy)]
pub struct Arrivals {
    /// How many.
    pub count: u32,
    /// Within what time, evenly.
    pub within: Duration,
    /// How long one may wait for a free connection; then it is not sent, as by an
    /// app that cannot connect.
    pub patience: Duration,
}

impl Arrivals {
    fn at(&self, n: u32) -> Duration {
        self.within.mul_f64(f64::from(n) / f64::from(self.count))
    }
}

/// Runs a script over so many connections, in one thread.
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

/// A connection, and when its request was to be sent.
struct Lane {
    connection: Connection,
    due: Option<Instant>,
}

impl<'a, S: Script> Open<'a, S> {
    fn new(address: SocketAddr, script: &'a mut S, connections: usize) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut lanes = Vec::with_capacity(connections);
        for n in 0..connections {
            if n % TOGETHER == TOGETHER - 1 {
                std::thread::sleep(ACCEPTED);
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
        let last = started + arrivals.within + PATIENCE;
        let mut waiting = VecDeque::new();
        let mut come = 0;
        loop {
            let now = Instant::now();
            while come < arrivals.count && started + arrivals.at(come) <= now {
                waiting.push_back(started + arrivals.at(come));
                come += 1;
            }
            self.send(&mut waiting, arrivals.patience)?;
            let in_flight = self.lanes.len() - self.free.len();
            let all_come = come == arrivals.count;
            if all_come && waiting.is_empty() && in_flight == 0 {
                break;
            }
            if now > last {
                self.load.failed += in_flight;
                self.load.unsent += waiting.len();
                break;
            }
            // An arrival that waits needs a connection, not time.
            let next = if all_come {
                now + Duration::from_millis(50)
            } else {
                started + arrivals.at(come)
            };
            self.wait(&mut events, next)?;
        }
        self.load.offered = arrivals.count as usize;
        self.load.took = started.elapsed();
        Ok(())
    }

    /// Sends what has come, as far as there are connections.
    fn send(&mut self, waiting: &mut VecDeque<Instant>, patience: Duration) -> anyhow::Result<()> {
        while let Some(due) = waiting.front().copied() {
            if due.elapsed() > patience {
                waiting.pop_front();
                self.load.unsent += 1;
                continue;
            }
            let Some(n) = self.free.pop_front() else {
                break;
            };
            waiting.pop_front();
            let request = self.script.next(0).context("an open loop has no end")?;
            let lane = &mut self.lanes[n];
            lane.due = Some(due);
            if lane.connection.send(request).is_err() {
                self.answered(n, Verdict::Failed);
                self.reconnect(n)?;
            }
        }
        Ok(())
    }

    /// Takes answers until the next request is due, or some were taken.
    fn wait(&mut self, events: &mut Events, next: Instant) -> anyhow::Result<()> {
        let rest = next.saturating_duration_since(Instant::now());
        let whole = Duration::from_millis(u64::try_from(rest.as_millis())?);
        self.poll.poll(events, Some(whole))?;
        if events.is_empty() && whole.is_zero() && !rest.is_zero() {
            std::thread::sleep(rest.min(NAP));
        }
        for event in &*events {
            let Token(n) = event.token();
            if self.lanes[n].due.is_none() {
                continue;
            }
            let verdict = match self.lanes[n].connection.receive() {
                Ok(None) => continue,
                Ok(Some(answer)) => judge(&*self.script, &answer),
                Err(_) => {
                    self.reconnect(n)?;
                    Verdict::Failed
                }
            };
            self.answered(n, verdict);
        }
        Ok(())
    }

    fn answered(&mut self, n: usize, verdict: Verdict) {
        if let Some(due) = self.lanes[n].due.take() {
            self.load.take(due.elapsed(), verdict);
            self.free.push_back(n);
        }
    }

    fn reconnect(&mut self, n: usize) -> anyhow::Result<()> {
        let registry = self.poll.registry();
        self.lanes[n].connection = Connection::open(self.address, registry, Token(n))?;
        Ok(())
    }
}
