//! The sessions of a request, parsed one by one: an invalid one does not block the others.

use commands::SyncSession;
use domain::clock as device_clock;
use domain::{
    BookId, EndSession, Position, ReaderId, SessionId, Standing, StartSession, Timestamp,
    UpdatePosition,
};
use projections::zones::Zones;
use serde_json::value::RawValue;

use super::body::{ObservationBody, SESSION_FIELDS, SessionBody};
use super::result::RefusedObservation;
use crate::extract::{Percent, hints, item};
use crate::problem::Problem;
use crate::warnings::Warnings;

const MAX_OBSERVATIONS: usize = 500;

/// The circumstances in which the sessions arrived.
pub(super) struct Arrival<'a> {
    pub(super) reader_id: ReaderId,
    pub(super) sent_at: Timestamp,
    pub(super) received: Timestamp,
    pub(super) zones: &'a Zones,
}

/// A valid session.
pub(super) struct ParsedSession {
    pub(super) sync: SyncSession,
    /// The indexes of `sync.observations` in the request.
    pub(super) indexes: Vec<usize>,
    pub(super) refused: Vec<RefusedObservation>,
}

/// The session id as in the request, and the session or its problem.
pub(super) type Parsed = (Option<String>, Result<ParsedSession, Problem>);

impl Arrival<'_> {
    pub(super) fn parse(&self, session: &RawValue, warnings: &mut Warnings) -> Parsed {
        let body = match item::parse::<SessionBody>(session) {
            Ok(body) => body,
            Err(error) => {
                return (
                    item::session_id(session),
                    Err(Problem::invalid_field(error)),
                );
            }
        };
        let session_id = Some(body.session_id.to_string());
        hints::warn_unknown_fields(session, &SESSION_FIELDS, warnings);
        (session_id, self.session(body, warnings))
    }

    fn session(
        &self,
        body: SessionBody,
        warnings: &mut Warnings,
    ) -> Result<ParsedSession, Problem> {
        let session_id = SessionId::from_client(body.session_id, self.received)?;
        let count = body.observations.len();
        if count > MAX_OBSERVATIONS {
            let message = format!("must contain at most {MAX_OBSERVATIONS}, not {count}");
            return Err(Problem::invalid("observations", message));
        }
        if body
            .ended_at
            .is_some_and(|ended_at| ended_at < body.started_at)
        {
            return Err(Problem::invalid(
                "ended_at",
                "must not be before started_at",
            ));
        }
        let mut refused = Vec::new();
        let mut valid = Vec::with_capacity(count);
        for (index, observation) in body.observations.iter().enumerate() {
            match item::parse::<ObservationBody>(observation) {
                Ok(observation) => valid.push((index, observation)),
                Err(error) => {
                    let problem = Problem::invalid_field(error);
                    refused.push(RefusedObservation::new(index, &problem));
                }
            }
        }
        let mut times = vec![Some(body.started_at)];
        times.extend(
            valid
                .iter()
                .map(|(_, observation)| Some(observation.occurred_at)),
        );
        times.extend(body.ended_at.map(Some));
        let mut placed = device_clock::place(&times, Some(self.sent_at), self.received).into_iter();
        let started = placed.next().expect("the start has a time")?;
        let mut observations = Vec::with_capacity(valid.len());
        let mut indexes = Vec::with_capacity(valid.len());
        for (index, observation) in valid {
            let occurred = placed.next().expect("each observation has a time");
            let mut of_observation = Warnings::default();
            let locator = hints::locator(observation.locator, &mut of_observation);
            warnings.add_item(&format!("observations[{index}]"), of_observation);
            match occurred {
                Ok(occurred) => {
                    indexes.push(index);
                    observations.push(UpdatePosition {
                        position: observation.current_position.0,
                        locator,
                        occurred,
                        standing: Standing::Active,
                    });
                }
                Err(refusal) => {
                    refused.push(RefusedObservation::new(index, &Problem::from(refusal)));
                }
            }
        }
        let end = placed.next().transpose()?.map(|occurred| EndSession {
            position: None,
            locator: None,
            occurred,
        });
        let start_position = body.start_position.map(|Percent(start)| start);
        Ok(ParsedSession {
            sync: SyncSession {
                session_id,
                start: StartSession {
                    reader_id: self.reader_id,
                    book_id: BookId::from(body.book_id),
                    position: start_position.unwrap_or(Position::START),
                    device_type: body.device_type,
                    device_id: hints::device_id(body.device_id, warnings),
                    time_zone: hints::time_zone(body.time_zone, self.zones, warnings),
                    locator: None,
                    book: hints::book(body.book, warnings),
                    occurred: started,
                    standing: Standing::Active,
                },
                start_position,
                observations,
                end,
            },
            indexes,
            refused,
        })
    }
}

impl ParsedSession {
    /// The time of the newest observation.
    pub(super) fn newest(&self) -> Timestamp {
        let times = self
            .sync
            .observations
            .iter()
            .map(|update| update.occurred.at());
        times.fold(self.sync.start.occurred.at(), Timestamp::max)
    }
}
