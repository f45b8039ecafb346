select p.projection, p.paused,
    case when p.held_until > clock_timestamp() then p.holder end as holder,
    p.failing and p.held_until > clock_timestamp() as "failing!",
    at.position as "global_position!", head.position as "head!",
    behind.events as "lag_events!", behind.seconds as "lag_seconds!",
    case when p.held_until > clock_timestamp() then p.events_per_second else 0 end as "events_per_second!",
    p.events, p.row_writes, letters.open as "dead_letters!", letters.discarded as "discarded!",
    c.tzdata, p.last_error, p.last_error_at,
    p.replay_position,
    p.replay_position is not null
        and coalesce(p.replay_reported_at > clock_timestamp() - interval '5 s', false) as "replaying!"
from projections as p
left join checkpoints as c using (projection)
-- The checkpoint of the cache is in Redis; `projections` contains the position that
-- its worker reported last.
cross join lateral (select coalesce(c.global_position, p.global_position) as position) as at
cross join (
    select coalesce(
        (select global_position from events order by global_position desc limit 1), 0
    ) as position
) as head
cross join lateral (
    select count(*) as events,
        coalesce(greatest(extract(epoch from clock_timestamp() - min(recorded_at)), 0), 0)::float8 as seconds
    from (
        select recorded_at from events
        where global_position > at.position
        order by global_position
        limit $1
    ) as waiting
) as behind
cross join lateral (
    select count(*) filter (where d.state <> 'discarded') as open,
        count(*) filter (where d.state = 'discarded') as discarded
    from dead_letters as d
    where d.projection = p.projection
) as letters
order by p.projection
