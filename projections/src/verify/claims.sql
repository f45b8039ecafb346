-- Compares the active-session claims with the sessions that are active in the log.
-- `history` is the fold of the log up to $1; `later` contains the events after it. A
-- reader with several active sessions differs, because a reader has one claim.
with later as (
    select aggregate_id as session_id, sequence, event_type, payload
    from events
    where global_position > $1
),
starts as (
    select session_id, payload ->> 'reader_id' as reader_id from later
    where event_type = 'SessionStarted'
),
-- Sessions with an event that cannot be applied. It is not known whether they are
-- active, so the comparison omits them. It also omits sessions that retention has removed
-- from the history.
unknown as (
    select session_id from dead_letters
    union
    select session_id from starts
    where reader_id is null or reader_id !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
),
-- An event shows whether its session is active after it. The query matches this in the
-- text of the payload: JSON strings may contain NUL, which Postgres cannot convert to
-- text. The match is exact, because quotes inside a JSON string are escaped.
changed as (
    select distinct on (session_id) session_id,
        event_type in ('SessionStarted', 'PositionUpdated')
            and payload::text !~ '"end_reason"\s*:\s*"' as is_active
    from later
    order by session_id, sequence desc
),
active as (
    select reader_id, session_id from history
    where ended_at is null and session_id not in (select session_id from changed)
    union all
    select
        coalesce(
            (select reader_id from history where session_id = changed.session_id),
            (select reader_id::uuid from starts where session_id = changed.session_id)
        ),
        session_id
    from changed
    where is_active and session_id not in (select session_id from unknown)
),
expected as (
    select reader_id, session_id from active
    where session_id not in (select session_id from unknown)
        and session_id >= (select history_from from retention where one)
),
compared as (
    select reader_id, c.session_id as found, e.session_id as expected
    from claims as c
    full join expected as e using (reader_id)
    where c.session_id is null
        or (
            c.session_id not in (select session_id from unknown)
            and c.session_id >= (select history_from from retention where one)
        )
)
select count(*) as "total!", count(*) filter (where found is distinct from expected) as "differing!",
    (
        select coalesce(json_agg(d), '[]')
        from (
            select
                case when found is not null then json_build_object('reader_id', reader_id, 'session_id', found) end as found,
                case when expected is not null then json_build_object('reader_id', reader_id, 'session_id', expected) end as expected
            from compared
            where found is distinct from expected
            order by reader_id
            limit $2
        ) as d
    ) as "first!"
from compared
