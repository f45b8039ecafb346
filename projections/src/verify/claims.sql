with later as (
    select aggregate_id as session_id, event_type, payload ->> 'reader_id' as reader_id
    from events
    where global_position > $1 and event_type in ('SessionStarted', 'SessionEnded')
),
-- `history` is the fold, up to the position.
active as (
    select reader_id, session_id from history where ended_at is null
    union all
    select reader_id::uuid, session_id from later where event_type = 'SessionStarted'
),
expected as (
    select reader_id, session_id from active
    where session_id not in (select session_id from later where event_type = 'SessionEnded')
),
compared as (
    select reader_id, c.session_id as found, e.session_id as expected
    from claims as c
    full join expected as e using (reader_id)
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
