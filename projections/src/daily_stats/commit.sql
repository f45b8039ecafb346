-- Commits rows of the projection. A single statement makes it atomic: it writes nothing
-- unless the checkpoint ($2) and its revision ($4) are those that the worker has read. The
-- rows are absolute values, computed from the stored rows at that revision; the days of all
-- readers are differences.
with moved as (
    update checkpoints
    set global_position = $3, written_to = $29, revision = $31,
        moved_at = clock_timestamp(),
        -- `least` ignores null.
        tzdata = least(tzdata, $28)
    where projection = $1 and global_position = $2 and revision = $4
    -- Retention has removed earlier days; they are not written again.
    returning (select days_from from retention where one) as days_from
),
removed as (
    delete from session_days as d
    using moved, unnest($5::text[], $6::date[]) as r (session_id, day)
    where d.session_id = r.session_id and d.day = r.day and r.day >= moved.days_from
),
written as (
    insert into session_days (
        session_id, day, reader_id, time_zone, active, last_at, position, ended_at,
        end_position, end_position_at, start_position, progress, ended, after_end, complete_to
    )
    select session_id, day, reader_id, time_zone, active, last_at, position, ended_at,
        end_position, end_position_at, start_position, progress, ended, after_end, complete_to
    from moved, unnest(
        $7::text[], $8::date[], $9::uuid[], $10::text[], $11::tstzmultirange[], $12::timestamptz[],
        $13::int[], $14::timestamptz[], $15::int[], $16::timestamptz[], $17::int[],
        $18::bigint[], $19::bool[], $20::bool[], $30::bigint[]
    ) as w (
        session_id, day, reader_id, time_zone, active, last_at, position, ended_at,
        end_position, end_position_at, start_position, progress, ended, after_end, complete_to
    )
    where day >= moved.days_from
    -- The reader and the time zone of a session never change.
    on conflict (session_id, day) do update
    set active = excluded.active,
        last_at = excluded.last_at,
        position = excluded.position,
        ended_at = excluded.ended_at,
        end_position = excluded.end_position,
        end_position_at = excluded.end_position_at,
        start_position = excluded.start_position,
        progress = excluded.progress,
        ended = excluded.ended,
        after_end = excluded.after_end,
        complete_to = excluded.complete_to
),
changed as (
    select c.*
    from moved, unnest(
        $21::date[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[],
        $26::bigint[], $27::bigint[]
    ) as c (
        day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
    )
    where c.day >= moved.days_from
),
emptied as (
    delete from days as d
    using changed as c
    where d.day = c.day and d.readers + c.readers <= 0
),
summed as (
    insert into days as d (
        day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
    )
    select day, readers, sessions, active_ms, progress, long_sessions, ended_sessions
    from changed as c
    where not exists (
        select from days as d where d.day = c.day and d.readers + c.readers <= 0
    )
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
