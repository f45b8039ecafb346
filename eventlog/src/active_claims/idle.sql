-- By when Postgres wrote the last event, not by the client's time: an app that
-- comes back online tells of what is hours old, and goes on.
select reader_id, session_id, last.sequence, last.recorded_at
from claims
cross join lateral (
    select sequence, recorded_at from events
    where aggregate_id = claims.session_id
    order by sequence desc
    limit 1
) as last
where ($1::uuid is null or reader_id > $1)
    -- One that is younger by its id has no older event.
    and session_id < $2
    and last.recorded_at < $3
order by reader_id
limit $4
