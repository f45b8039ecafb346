select session_id, reader_id, book_id, version, started_at, ended_at, last_activity_at, active_ms,
    start_position, position, furthest_position, device_type, device_id, end_reason, locator,
    book_title, book_author, book_total_pages, time_zone
from history
where reader_id = $1 and (started_at, session_id) < ($2, $3)
order by started_at desc, session_id desc
limit $4 offset $5
