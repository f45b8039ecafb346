-- Deletes the days and hours before $2 of the next $3 readers after $1. Returns the
-- number of deleted rows and the last of these readers.
with readers as (
    select distinct reader_id from read.reader_days
    where reader_id > $1
    order by reader_id
    limit $3
),
days as (
    delete from read.reader_days
    where reader_id in (select reader_id from readers) and day < $2
    returning 1
),
hours as (
    delete from read.reader_hours
    where reader_id in (select reader_id from readers) and day < $2
    returning 1
)
select (select count(*) from days) + (select count(*) from hours) as "rows!",
    (select reader_id from readers order by reader_id desc limit 1) as "last"
