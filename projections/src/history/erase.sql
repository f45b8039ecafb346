-- Removes erased sessions, and subtracts them from the totals. It runs before
-- commit.sql, in the same transaction.
with gone as (
    delete from history where session_id = any ($1::text[])
    returning reader_id, book_id
),
fewer as (
    select reader_id, book_id, count(*) as sessions from gone group by reader_id, book_id
),
emptied as (
    delete from history_totals as t using fewer
    where t.reader_id = fewer.reader_id and t.book_id = fewer.book_id
        and t.sessions <= fewer.sessions
)
update history_totals as t
set sessions = t.sessions - fewer.sessions
from fewer
where t.reader_id = fewer.reader_id and t.book_id = fewer.book_id
    and t.sessions > fewer.sessions
