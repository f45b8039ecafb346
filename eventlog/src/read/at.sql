select global_position, aggregate_id as session_id, sequence, event_type, event_version,
    payload::text as "payload!", metadata::text as "metadata!", recorded_at
from events
where global_position = any ($1)
order by global_position
