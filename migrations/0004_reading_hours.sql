-- The hours of a reading day, and the zone that the day is of: what weekly
-- statistics, streaks and reading patterns need.

-- The default is for workers of the build before, which do not know the column.
alter table read.reader_days add column time_zone text not null default 'UTC';

-- One row a reader, reading day and hour of it.
create table read.reader_hours (
    reader_id uuid not null,
    day date not null,
    hour smallint not null,
    -- Sessions in which something was read or seen in that hour.
    sessions bigint not null,
    active_ms bigint not null,
    primary key (reader_id, day, hour)
);

-- The projection makes all of it again from the log; until then statistics
-- are incomplete.
truncate read.reader_days, read.days;
delete from read.checkpoints where projection = 'daily_stats';
