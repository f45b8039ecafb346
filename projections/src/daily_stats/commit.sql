-- Commits a batch of the projection. A single statement makes it atomic: it writes
-- nothing unless the checkpoint is at the start of the batch ($2) and the number of
-- replays is unchanged ($18).
with moved as (
    update checkpoints
    set global_position = $3, moved_at = clock_timestamp()
    where projection = $1 and global_position = $2 and replays = $18
    returning 1
),
added as (
    select *
    from unnest(
        $4::uuid[], $5::date[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[],
        $10::bigint[], $11::bigint[], $12::bigint[]
    ) as a (
        reader_id, day, sessions, active_ms, progress, time_zone, time_zone_position,
        long_sessions, ended_sessions
    )
    where exists (select from moved) and day >= (select days_from from retention where one)
),
hours as (
    insert into reader_hours as h (reader_id, day, hour, sessions, active_ms)
    select reader_id, day, hour, sessions, active_ms
    from unnest($13::uuid[], $14::date[], $15::smallint[], $16::bigint[], $17::bigint[])
        as a (reader_id, day, hour, sessions, active_ms)
    where exists (select from moved) and day >= (select days_from from retention where one)
    on conflict (reader_id, day, hour) do update
    set sessions = h.sessions + excluded.sessions,
        active_ms = h.active_ms + excluded.active_ms
),
readers as (
    insert into reader_days as d (
        reader_id, day, sessions, active_ms, progress, time_zone, time_zone_position,
        long_sessions, ended_sessions
    )
    select reader_id, day, sessions, active_ms, progress, time_zone, time_zone_position,
        long_sessions, ended_sessions
    from added
    on conflict (reader_id, day) do update
    set sessions = d.sessions + excluded.sessions,
        active_ms = d.active_ms + excluded.active_ms,
        progress = d.progress + excluded.progress,
        time_zone = case
            when excluded.time_zone_position > d.time_zone_position then excluded.time_zone
            else d.time_zone
        end,
        time_zone_position = greatest(d.time_zone_position, excluded.time_zone_position),
        long_sessions = d.long_sessions + excluded.long_sessions,
        ended_sessions = d.ended_sessions + excluded.ended_sessions
    -- `xmax` is 0 for an inserted row; for an updated row it is this transaction.
    returning day, (xmax = 0)::int as new
),
counted as (
    select day, sum(new) as readers from readers group by day
),
summed as (
    insert into days as d (
        day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
    )
    select day, counted.readers, sum(sessions), sum(active_ms), sum(progress),
        sum(long_sessions), sum(ended_sessions)
    from added
    join counted using (day)
    group by day, counted.readers
    order by day
    on conflict (day) do update
    set readers = d.readers + excluded.readers,
        sessions = d.sessions + excluded.sessions,
        active_ms = d.active_ms + excluded.active_ms,
        progress = d.progress + excluded.progress,
        long_sessions = d.long_sessions + excluded.long_sessions,
        ended_sessions = d.ended_sessions + excluded.ended_sessions
)
select exists (select from moved) as "moved!"
