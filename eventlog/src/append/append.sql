select refused as "refused!", positions as "positions!"
from append_events(
    $1, $2, $3, $4, $5, $6, $7, $8,
    $9, $10, $11, $12, $13, $14,
    $15, $16, $17,
    $18, $19, $20, $21, $22
)
-- The contract of append_events (migrations/0011_facts_by_time.sql). This comment is at
-- the end, because pg_stat_activity shows the beginning of a statement only.
--
-- Each row of the arguments belongs to a command of the batch. $1 to $8 are the events,
-- $9 to $14 the changes of active-session claims, $15 to $17 the sessions that a command has
-- seen without an event for them, and $18 to $22 the idempotency keys with their responses.
-- $1, $9, $15 and $18 are the indexes of the commands.
--
-- The function takes the order lock: the advisory lock 7340001, which every append holds
-- from before its global positions are drawn until its commit. So events become visible in
-- the order of their global positions.
--
-- Then it refuses a command if
--   - its event does not follow the session's last event without a gap,
--   - a session that it has seen has another last event,
--   - the reader's active session is not the expected one,
--   - no session is expected to be active, and the newest observation outside the active
--     session is not the expected one,
--   - an earlier command of the batch changes the same active-session claim,
--   - its idempotency key is in use, also by an earlier command of the batch, or
--   - an earlier command of the batch with an event of the same session is refused.
-- The last event of a session may be in the log or earlier in the batch.
--
-- Finally it writes all other commands. A command is written completely or not at all. An
-- error, such as data that Postgres cannot store, means that nothing was written.
--
-- `refused` contains the indexes of the refused commands. `positions` contains the global
-- positions of all written events, in the order of the arguments.
