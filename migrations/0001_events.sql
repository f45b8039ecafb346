-- The event log: the only truth. Everything else here and in NATS and Redis
-- can be made again from these rows.

-- One number for every event, in the order in which events become visible.
-- No cache: a cached value would be drawn outside the order lock.
create sequence events_global_position as bigint no cycle;

-- The columns that postgres-es knows keep its names; it reads this table.
-- `json`, not `jsonb`: payloads are kept as they were written, and nothing is
-- looked up inside them.
create table events (
    global_position bigint not null default nextval('events_global_position'),
    sequence bigint not null check (sequence >= 1),
    recorded_at timestamptz not null default clock_timestamp(),
    -- A UUIDv7 as text: its order is the order of time, which is what the
    -- monthly partitions cut by.
    aggregate_id text collate "C" not null,
    aggregate_type text not null,
    event_type text not null,
    event_version text not null,
    payload json not null,
    metadata json not null,
    -- Optimistic concurrency: two writers cannot both write a session's n-th event.
    constraint events_sequence primary key (aggregate_id, sequence)
) partition by range (aggregate_id);

alter sequence events_global_position owned by events.global_position;

-- Not unique, since a unique index of a partitioned table must hold its
-- partition key; the sequence draws each value once.
create index events_by_global_position on events (global_position);

-- Writers queue here before they draw a position, so that the order of
-- positions is the order of commits, and a reader's cursor is one number.
create function events_take_order_lock() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(7340001);
    return null;
end $$;

create function events_refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'events are append-only' using errcode = 'restrict_violation';
end $$;

create trigger events_order before insert on events
    for each statement execute function events_take_order_lock();
create trigger events_no_truncate before truncate on events
    for each statement execute function events_refuse_change();
-- Row triggers reach the partitions by themselves, statement triggers do not:
-- `create_month_partitions` repeats those above.
create trigger events_no_change before update or delete on events
    for each row execute function events_refuse_change();

-- Which session a reader has open. Taken and given back in the transaction of
-- the events that open and close it, so a reader never has two.
create table claims (
    reader_id uuid primary key,
    session_id text collate "C" not null
) with (fillfactor = 70);

-- Commands that came with an idempotency key, and the answer they got.
-- A table of its own, not a column of `events`: a key covers the answer to a
-- whole command, which may have made events in several sessions or none.
create table idempotency_keys (
    reader_id uuid not null,
    key text not null,
    -- Of the method, path and body, to tell a repeat from another command.
    fingerprint bytea not null,
    answer json not null,
    recorded_at timestamptz not null default clock_timestamp(),
    constraint idempotency_key primary key (reader_id, key)
);

-- The id of a UUIDv7 at the first moment of a month, without its random part.
create function month_bound(month date) returns text language sql immutable as $$
    select substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-0000-0000-000000000000'
    from (
        select lpad(to_hex((extract(epoch from month::timestamp at time zone 'UTC') * 1000)::bigint), 12, '0')
    ) as t (hex)
$$;

-- Creates the partitions of a table by month of the UUIDv7 in its key: from two
-- months back, since a client's id may be 30 days old and February is shorter,
-- to `ahead` months from now. Those that exist stay. Returns how many are new.
create function create_month_partitions(parent regclass, ahead int) returns int
language plpgsql as $$
declare
    month date;
    partition text;
    created int := 0;
begin
    perform pg_advisory_xact_lock(7340003);
    for month in
        select generate_series(
            date_trunc('month', now() at time zone 'UTC') - interval '2 months',
            date_trunc('month', now() at time zone 'UTC') + make_interval(months => ahead),
            interval '1 month'
        )::date
    loop
        partition := parent::text || to_char(month, '"_"YYYY"_"MM');
        if to_regclass(partition) is null then
            execute format(
                'create table %s partition of %s for values from (%L) to (%L)',
                partition, parent, month_bound(month), month_bound((month + interval '1 month')::date)
            );
            if parent = 'events'::regclass then
                execute format(
                    'create trigger events_order before insert on %s
                        for each statement execute function events_take_order_lock()', partition);
                execute format(
                    'create trigger events_no_truncate before truncate on %s
                        for each statement execute function events_refuse_change()', partition);
            end if;
            created := created + 1;
        end if;
    end loop;
    return created;
end $$;
