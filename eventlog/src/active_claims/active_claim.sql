select
    coalesce(
        (select global_position from events order by global_position desc limit 1), 0
    ) as "head!",
    claims.session_id as "session_id?",
    last.sequence as "sequence?",
    last.global_position as "global_position?"
from (values ($1::uuid)) as wanted (reader_id)
left join claims on claims.reader_id = wanted.reader_id
left join lateral (
    select sequence, global_position from events
    where aggregate_id = claims.session_id
    order by sequence desc
    limit 1
) as last on true
