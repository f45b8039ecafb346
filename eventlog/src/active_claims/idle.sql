-- A session is idle if its latest observation is older than $2. The last event shows
-- this only in part, so the query returns candidates: a session whose last event was
-- recorded before $2, or contains an observation from before $2. The second condition
-- finds a session that was read long ago and whose observations arrived just now. It also
-- finds an active session that has just received a late observation.
--
-- The time is cut out of the text of the payload: JSON strings may contain NUL, which
-- Postgres cannot convert to text, and a regular expression takes ten times as long. The
-- match is exact, because quotes inside a JSON string are escaped, only a key is followed
-- by a colon, and the service writes no spaces. The first 19 characters of the time have
-- the form 2026-03-01T20:00:00, always in UTC, so they compare as text.
select reader_id, session_id, last.sequence
from claims
cross join lateral (
    select sequence, recorded_at, event_type, payload from events
    where aggregate_id = claims.session_id
    order by sequence desc
    limit 1
) as last
where ($1::uuid is null or reader_id > $1)
    and (
        last.recorded_at < $2
        or left(
            nullif(
                split_part(
                    split_part(
                        last.payload::text,
                        case last.event_type
                            when 'SessionStarted' then '"started_at":'
                            else '"occurred_at":'
                        end,
                        2
                    ),
                    '"',
                    2
                ),
                ''
            ),
            19
        ) collate "C" <= (
            select to_char($2 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
        )
    )
order by reader_id
limit $3
