-- The read side: what projections make of the log. All of it can be dropped
-- and made again. In a schema of its own, so that a replay can fill another
-- one and swap them by name; statements name no schema, connections do.
create schema read;

-- How far a projection has read. Moved by compare-and-set in the statement
-- that writes the projection's rows, so a row is never written twice.
create table read.checkpoints (
    projection text primary key,
    global_position bigint not null,
    moved_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

-- One row a session: what the history query shows.
-- Positions are ten-thousandths of a percent.
create table read.history (
    session_id text collate "C" primary key,
    reader_id uuid not null,
    book_id uuid not null,
    version bigint not null,
    started_at timestamptz not null,
    ended_at timestamptz,
    last_activity_at timestamptz not null,
    active_ms bigint not null,
    start_position int not null,
    position int not null,
    furthest_position int not null,
    device_type text,
    device_id text,
    end_reason text,
    locator text,
    book_title text,
    book_author text,
    book_total_pages int,
    time_zone text not null
) partition by range (session_id);

-- The order of the history query, newest first, of all books and of one.
create index history_by_reader on read.history (reader_id, started_at desc, session_id desc);
create index history_by_book on read.history (reader_id, book_id, started_at desc, session_id desc);

-- How many sessions a reader has of each book, so that no page counts rows.
create table read.history_totals (
    reader_id uuid not null,
    book_id uuid not null,
    sessions bigint not null,
    primary key (reader_id, book_id)
);

-- One row a reader and reading day.
create table read.reader_days (
    reader_id uuid not null,
    day date not null,
    -- Sessions in which something was read or seen on that day.
    sessions bigint not null,
    active_ms bigint not null,
    -- Net progress, in ten-thousandths of a percent of a book.
    progress bigint not null,
    primary key (reader_id, day)
);

-- One row a day: all readers, each by the own reading day.
create table read.days (
    day date primary key,
    readers bigint not null,
    sessions bigint not null,
    active_ms bigint not null,
    progress bigint not null
);

select create_month_partitions('events', 3);
select create_month_partitions('read.history', 3);
