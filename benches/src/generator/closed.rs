//! A closed loop: each connection sends its next request when it has received the response
//! to the previous one. It finds the capacity of a service. Its latencies mean little,
//! because they grow with the number of connections.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::{Events, Poll, Token};

use super::connection::Connection;
use super::{Load, Outcome, RESPONSE_TIMEOUT, Script, classify};

/// Longest wait of a poll. It limits the delay after the end of the run.
const MAX_POLL: Duration = Duration::from_millis(50);

/// Runs each script in its own thread, with `connections` connections each. Ends when the
/// scripts end or `length` has passed.
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
                load.merge(part.ok().context("a generator thread panicked")??);
            }
            load.sort();
            Ok(load)
        })
    })
}

/// A connection, and the send time of the request in flight, if any.
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
    let end = started + length;
    for (n, lane) in lanes.iter_mut().enumerate() {
        in_flight += usize::from(send_next(script, n, lane, &mut load)?);
    }
    while in_flight > 0 && Instant::now() < end + RESPONSE_TIMEOUT {
        poll.poll(&mut events, Some(MAX_POLL))?;
        for event in &events {
            let Token(n) = event.token();
            let lane = &mut lanes[n];
            let Some(sent) = lane.sent else {
                continue;
            };
            let outcome = match lane.connection.receive() {
                Ok(None) => continue,
                Ok(Some(response)) => classify(script, &response),
                Err(_) => {
                    lane.connection = Connection::open(address, poll.registry(), Token(n))?;
                    Outcome::Failed
                }
            };
            let now = Instant::now();
            load.record(now - sent, outcome);
            lane.sent = None;
            in_flight -= 1;
            if now < end {
                in_flight += usize::from(send_next(script, n, lane, &mut load)?);
            }
        }
    }
    load.failed += in_flight;
    load.elapsed = started.elapsed();
    Ok(load)
}

/// Sends the next request of a lane. Returns whether there was one.
fn send_next(
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
