-- Three events determine the state of a session, because events contain absolute
-- values: the first, the last, and the last that moved the position. Two or all of
-- them may be the same event. A late observation does not move the position; its
-- payload has `"applied": false`. It can be the last event after an end. Ends have no
-- such member, so they always match. The query matches the text of the payload:
-- JSON strings may contain NUL, which Postgres cannot convert to text. The match is
-- exact, because quotes inside a JSON string are escaped.
select e.global_position as "global_position!", wanted.session_id as "session_id!",
    e.sequence as "sequence!", e.event_type as "event_type!", e.event_version as "event_version!",
    e.payload::text as "payload!", e.metadata::text as "metadata!", e.recorded_at as "recorded_at!"
from unnest($1::text[], $2::bigint[]) as wanted (session_id, most)
cross join lateral (
    select * from events
    where aggregate_id = wanted.session_id and events.sequence <= wanted.most
    order by events.sequence desc
    limit 1
) as last
cross join lateral (
    (
        select * from events
        where aggregate_id = wanted.session_id and events.sequence = 1 and last.sequence > 1
    )
    union all
    (
        select * from events
        where aggregate_id = wanted.session_id and events.sequence < last.sequence
            and last.payload::text ~ '"applied"\s*:\s*false'
            and payload::text !~ '"applied"\s*:\s*false'
        order by events.sequence desc
        limit 1
    )
    union all
    select last.*
) as e
order by wanted.session_id, e.sequence
