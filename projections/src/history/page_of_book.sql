-- Returns a page and the number of sessions on all pages. An empty page is one row
-- with that number alone. The join guarantees no order, so the caller sorts the rows.
select totals.total as "total!", page.*
from (
    select coalesce(sum(sessions), 0)::bigint as total
    from history_totals
    where reader_id = $1 and book_id = $2
) as totals
left join (
    select session_id, reader_id, book_id, version, started_at, ended_at, last_activity_at, position_at,
        active_ms, start_position, position, furthest_position, device_type, device_id, end_reason, locator,
        book_title, book_author, book_total_pages, time_zone
    from history
    where reader_id = $1 and book_id = $2 and (started_at, session_id) < ($3, $4)
    order by started_at desc, session_id desc
    limit $5 offset $6
) as page on true
