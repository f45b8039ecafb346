-- Upkeep: jobs that processes share, and what they need.

-- One row a job. Whoever runs it holds it, for as long as it says so.
create table jobs (
    job text primary key,
    -- By itself, when this has come.
    due_at timestamptz not null default '-infinity',
    -- At once, whatever is due: somebody wants it.
    asked boolean not null default false,
    holder text,
    held_until timestamptz not null default '-infinity',
    -- Of the run that goes on: when it began, and what it has done.
    began_at timestamptz,
    done bigint not null default 0,
    -- Of the last run that came to its end.
    ended_at timestamptz,
    took_ms bigint,
    failed boolean not null default false,
    result text
) with (fillfactor = 50);

insert into jobs (job) values
    ('idle_sessions'), ('partitions'), ('retention'), ('statistics_window'),
    ('idempotency_keys'), ('warm_up');

-- Runs that did something, or failed at it.
create table job_runs (
    job text not null references jobs (job),
    began_at timestamptz not null,
    took_ms bigint not null,
    failed boolean not null,
    result text not null,
    -- What a job counts besides, for whoever adds it up.
    figures jsonb not null default '{}',
    primary key (job, began_at)
);

-- What has left the read tables for good: nothing before these is written to
-- them again, by a replay neither.
create table retention (
    one boolean primary key default true check (one),
    -- The first session id of the history.
    history_from text collate "C" not null default '',
    -- The first day of the statistics.
    days_from date not null default '-infinity'
);
insert into retention default values;

-- Keys are written in the order of time, so a range of blocks says what is old,
-- and a command pays next to nothing for it.
create index idempotency_keys_by_age on idempotency_keys using brin (recorded_at)
    with (pages_per_range = 32);
