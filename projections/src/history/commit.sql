-- Commits rows of the projection. A single statement makes it atomic: it writes nothing
-- unless the checkpoint ($2) and its revision ($36) are those that the worker has read.
with moved as (
    update checkpoints
    set global_position = $3, written_to = $37, revision = $38,
        moved_at = clock_timestamp()
    where projection = $1 and global_position = $2 and revision = $36
    returning 1
),
started as (
    insert into history (
        session_id, reader_id, book_id, version, started_at, ended_at, last_activity_at, position_at,
        active_ms, start_position, position, furthest_position, device_type, device_id, end_reason, locator,
        book_title, book_author, book_total_pages, time_zone
    )
    select s.*
    from unnest(
        $4::text[], $5::uuid[], $6::uuid[], $7::bigint[], $8::timestamptz[], $9::timestamptz[],
        $10::timestamptz[], $11::timestamptz[], $12::bigint[], $13::int[], $14::int[], $15::int[],
        $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::int[],
        $23::text[]
    ) as s (session_id)
    where exists (select from moved)
        -- Retention has removed earlier sessions; they are not inserted again.
        and s.session_id >= (select history_from from retention where one)
    -- A worker that restarts folds events again. `changed` updates the row then.
    on conflict (session_id) do nothing
    returning reader_id, book_id
),
counted as (
    insert into history_totals as totals (reader_id, book_id, sessions)
    select reader_id, book_id, count(*)
    from started
    group by reader_id, book_id
    order by reader_id, book_id
    on conflict (reader_id, book_id) do update
    set sessions = totals.sessions + excluded.sessions
),
changed as (
    update history
    set version = c.version,
        started_at = coalesce(c.started_at, history.started_at),
        start_position = coalesce(c.start_position, history.start_position),
        ended_at = c.ended_at,
        last_activity_at = coalesce(c.last_activity_at, history.last_activity_at),
        -- A new position replaces its time and its locator, even if it has none.
        position_at = case when c.position is null then history.position_at else c.position_at end,
        active_ms = c.active_ms,
        position = coalesce(c.position, history.position),
        furthest_position = c.furthest_position,
        end_reason = c.end_reason,
        locator = case when c.position is null then history.locator else c.locator end
    from unnest(
        $24::text[], $25::bigint[], $26::timestamptz[], $27::int[], $28::timestamptz[],
        $29::timestamptz[], $30::timestamptz[], $31::bigint[], $32::int[], $33::int[],
        $34::text[], $35::text[]
    ) as c (
        session_id, version, started_at, start_position, ended_at, last_activity_at,
        position_at, active_ms, position, furthest_position, end_reason, locator
    )
    -- Rows can be ahead of the checkpoint. They contain the events already.
    where history.session_id = c.session_id and history.version < c.version
        and exists (select from moved)
)
select exists (select from moved) as "moved!"
