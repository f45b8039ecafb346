-- Idleness is measured from `recorded_at` of the last event, not from the client's
-- time. An app that comes back online sends observations that are hours old, and its
-- session must stay active.
select reader_id, session_id, last.sequence, last.recorded_at
from claims
cross join lateral (
    select sequence, recorded_at from events
    where aggregate_id = claims.session_id
    order by sequence desc
    limit 1
) as last
where ($1::uuid is null or reader_id > $1)
    -- A session with a later id has only later events.
    and session_id < $2
    and last.recorded_at < $3
order by reader_id
limit $4
