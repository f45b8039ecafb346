select global_position, aggregate_id as session_id, sequence, event_type, event_version,
    payload::text as "payload!", metadata::text as "metadata!", recorded_at
from events
where aggregate_id = $1 and sequence > $2
order by sequence
limit $3
