//! A closed loop: each connection has one request in flight, and sends the next
//! when it is answered. Finds what a service can do at most; says little of
//! latency, which is as long as the queue that it makes itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};

use super::connection::Connection;
use super::{Load, PATIENCE, Script, Verdict, judge};

/// The longest wait for anything; bounds how late the end is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// Runs scripts, each in a thread of its own with so many connections, until
/// they have no more to ask or the time is over.
pub fn run<S: Script>(
    address: SocketAddr,
    scripts: &mut [S],
    connections: usize,
    length: Duration,
) -> anyhow::Result<Load> {
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = scripts
                .iter_mut()
                .map(|script| scope.spawn(move || one(address, script, connections, length)))
                .collect();
            let mut load = Load::default();
            for thread in threads {
                let part = thread.join();
                load.merge(part.ok().context("a generator panicked")??);
            }
            load.sort();
            Ok(load)
        })
    })
}

/// A connection and when its request was sent; none is in flight when none was.
struct Lane {
    connection: Connection,
    sent: Option<Instant>,
}

fn one(
    address: SocketAddr,
    script: &mut impl Script,
    connections: usize,
    length: Duration,
) -> anyhow::Result<Load> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(connections);
    let mut lanes = Vec::with_capacity(connections);
    for n in 0..connections {
        lanes.push(Lane {
            connection: Connection::open(address, poll.registry(), Token(n))?,
            sent: None,
        });
    }
    let mut load = Load::default();
    let mut in_flight = 0;
    let started = Instant::now();
    let until = started + length;
    for (n, lane) in lanes.iter_mut().enumerate() {
        in_flight += usize::from(ask(script, n, lane, &mut load)?);
    }
    while in_flight > 0 && Instant::now() < until + PATIENCE {
        poll.poll(&mut events, Some(LOOK))?;
        for event in &events {
            let Token(n) = event.token();
            let lane = &mut lanes[n];
            let Some(sent) = lane.sent else {
                continue;
            };
            let verdict = match lane.connection.receive() {
                Ok(None) => continue,
                Ok(Some(answer)) => judge(script, &answer),
                Err(_) => {
                    lane.connection = Connection::open(address, poll.registry(), Token(n))?;
                    Verdict::Failed
                }
            };
            let now = Instant::now();
            load.take(now - sent, verdict);
            lane.sent = None;
            in_flight -= 1;
            if now < until {
                in_flight += usize::from(ask(script, n, lane, &mut load)?);
            }
        }
    }
    load.failed += in_flight;
    load.took = started.elapsed();
    Ok(load)
}

/// Sends a lane's next request; whether it had one.
fn ask(
    script: &mut impl Script,
    n: usize,
    lane: &mut Lane,
    load: &mut Load,
) -> anyhow::Result<bool> {
    let Some(request) = script.next(n) else {
        return Ok(false);
    };
    lane.sent = Some(Instant::now());
    lane.connection.send(request)?;
    load.offered += 1;
    Ok(true)
}
