with later as (
    select aggregate_id as session_id, event_type, payload ->> 'reader_id' as reader_id
    from events
    where global_position > $1 and event_type in ('SessionStarted', 'SessionEnded', 'SessionErased')
),
-- Sessions with an event that cannot be applied. It is not known whether they are
-- open, so the comparison omits them.
unknown as (
    select session_id from dead_letters
    union
    select session_id from later
    where reader_id is null or reader_id !~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
),
-- `history` is the fold of the log up to $1; `later` contains the events after it.
active as (
    select reader_id, session_id from history where ended_at is null
    union all
    select case when session_id not in (select session_id from unknown) then reader_id::uuid end, session_id
    from later
    where event_type = 'SessionStarted'
),
expected as (
    select reader_id, session_id from active
    where session_id not in (
            select session_id from later where event_type in ('SessionEnded', 'SessionErased')
        )
        and session_id not in (select session_id from unknown)
),
compared as (
    select reader_id, c.session_id as found, e.session_id as expected
    from claims as c
    full join expected as e using (reader_id)
    where c.session_id is null or c.session_id not in (select session_id from unknown)
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
