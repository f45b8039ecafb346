-- Deletes the days before $2 of the next $3 readers after $1. Returns the number of
-- deleted rows and the last of these readers.
with readers as (
    select distinct reader_id from read.session_days
    where reader_id > $1
    order by reader_id
    limit $3
),
deleted as (
    delete from read.session_days
    where reader_id in (select reader_id from readers) and day < $2
    returning 1
)
select (select count(*) from deleted) as "rows!",
    (select reader_id from readers order by reader_id desc limit 1) as "last"
