//! The commands of client apps. A command contains the client's time, if any,
//! and its arrival time, so that deciding needs no clock.

use chrono::TimeDelta;

pub use crate::clock::Occurrence;
use crate::event::{Book, DeviceType, EndReason};
use crate::{BookId, Observation, Position, ReaderId, Standing, Timestamp, ZoneName};

/// Starts a session.
#[derive(Clone, Debug)]
pub struct StartSession {
    pub reader_id: ReaderId,
    pub book_id: BookId,
    pub position: Position,
    pub device_type: Option<DeviceType>,
    /// The device's id in the app's own format.
    pub device_id: Option<String>,
    /// The zone of the reader's calendar days. `None`: the commands side takes that of
    /// the reader's last session.
    pub time_zone: Option<ZoneName>,
    /// The exact place in the app's own format, for example an EPUB CFI.
    pub locator: Option<String>,
    pub book: Option<Book>,
    pub occurred: Occurrence,
    /// The standing of the new session after its start.
    pub standing: Standing,
}

/// Records the reader's position.
#[derive(Clone, Debug)]
pub struct UpdatePosition {
    pub position: Position,
    /// The exact place in the app's own format, for example an EPUB CFI.
    pub locator: Option<String>,
    pub occurred: Occurrence,
    /// The standing of the session after the update, unless its reader has ended it.
    pub standing: Standing,
}

impl UpdatePosition {
    /// Whether the command sends an observation again. Without a client's time, each
    /// command is an observation of its own.
    #[must_use]
    pub fn repeats(&self, observation: &Observation) -> bool {
        let Occurrence {
            client,
            device_time,
            ..
        } = self.occurred;
        device_time.or(client).is_some_and(|sent_time| {
            observation.was_sent_as(sent_time, self.position, self.locator.as_deref())
        })
    }
}

/// Ends a session by its reader.
#[derive(Clone, Debug)]
pub struct EndSession {
    /// The final position; `None` keeps the session's latest one.
    pub position: Option<Position>,
    /// The exact place of the end in the app's own format.
    pub locator: Option<String>,
    pub occurred: Occurrence,
}

/// Corrects an ended session. `None` keeps a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct CorrectSession {
    pub ended_at: Option<Timestamp>,
    pub position: Option<Position>,
    pub active: Option<TimeDelta>,
    /// The arrival time of the command, by the server's clock.
    pub received: Timestamp,
}

/// A command for one reading session.
#[derive(Clone, Debug)]
pub enum SessionCommand {
    Start(StartSession),
    UpdatePosition(UpdatePosition),
    End(EndSession),
    /// Ends an active session provisionally, at its latest observation. The service
    /// concludes this; it adds no reading time.
    Deactivate(EndReason),
    Correct(CorrectSession),
}
