select global_position, aggregate_id as session_id, events.sequence, event_type, event_version,
    payload::text as "payload!", metadata::text as "metadata!", recorded_at
from unnest($1::text[], $2::bigint[]) as wanted (session_id, most)
join events on events.aggregate_id = wanted.session_id and events.sequence <= wanted.most
order by aggregate_id, events.sequence
