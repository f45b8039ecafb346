-- The roles of the service, and the owner of the schema. `migrate` runs this file before
-- the migrations, each time. A role that exists already keeps its password.
--
-- Roles belong to the whole server, so another database of the server may create them at
-- the same moment.
do $$
declare
    name text;
    former text;
    command text;
begin
    foreach name in array array[
        'reading_owner', 'reading_api', 'reading_relay', 'reading_projections', 'reading_operator',
        'reading_jobs', 'reading_service', 'reading_monitor'
    ] loop
        if to_regrole(name) is null then
            begin
                execute format('create role %I nologin', name);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
    end loop;

    -- Later statements of `migrate` run as the owner.
    if not pg_has_role(current_user, 'reading_owner', 'usage') then
        execute format('grant reading_owner to %I', current_user);
    end if;
    if not has_database_privilege('reading_owner', current_database(), 'create') then
        execute format('grant create on database %I to reading_owner', current_database());
    end if;
    if not has_schema_privilege('reading_owner', 'public', 'create') then
        grant usage, create on schema public to reading_owner;
    end if;
    if has_schema_privilege('public', 'public', 'create') then
        revoke create on schema public from public;
    end if;

    -- Each role contains the rights of those that follow it.
    for command in
        select format('grant %I to %I', part, whole)
        from (values
            ('reading_service', 'reading_api'), ('reading_service', 'reading_relay'),
            ('reading_service', 'reading_jobs'), ('reading_jobs', 'reading_operator'),
            ('reading_operator', 'reading_projections')
        ) as member (whole, part)
        where not pg_has_role(whole, part, 'usage')
    loop
        execute command;
    end loop;

    -- `doctor` looks for long transactions of all roles. Without this right it sees its own.
    if not pg_has_role('reading_operator', 'pg_read_all_stats', 'usage') then
        begin
            grant pg_read_all_stats to reading_operator;
        exception when insufficient_privilege then
            raise notice 'pg_read_all_stats was not granted to reading_operator';
        end;
    end if;

    -- An exporter of metrics reads the statistics and settings of the server.
    if not pg_has_role('reading_monitor', 'pg_monitor', 'usage') then
        begin
            grant pg_monitor to reading_monitor;
        exception when insufficient_privilege then
            raise notice 'pg_monitor was not granted to reading_monitor';
        end;
    end if;

    -- The setting exists in a server that loads the library at its start. Without that the
    -- extension counts nothing.
    if current_setting('pg_stat_statements.max', true) is not null
        and exists (select from pg_available_extensions as e where e.name = 'pg_stat_statements')
    then
        begin
            create extension if not exists pg_stat_statements;
        exception when insufficient_privilege then
            raise notice 'the extension pg_stat_statements was not created';
        end;
    end if;

    -- Objects of an earlier release belong to the role that ran its migrations. Processes
    -- of that release still use that role, so it keeps its rights.
    for former, command in
        select nspowner::regrole, format('alter schema %I owner to reading_owner', nspname)
        from pg_namespace
        where nspname ~ '^(read|(replay|verify|retired)_[a-z_]+)$'
            and nspowner <> 'reading_owner'::regrole
        union all
        select relowner::regrole, format('alter table %s owner to reading_owner', c.oid::regclass)
        from pg_class as c join pg_namespace as n on n.oid = relnamespace
        where relkind in ('r', 'p') and relowner <> 'reading_owner'::regrole
            and (
                nspname ~ '^(read|(replay|verify|retired)_[a-z_]+)$'
                or nspname = 'public' and relname ~ (
                    '^(events(_\d{4}_\d{2})?|claims|newest_observations|idempotency_keys|erasures'
                    '|erased_sessions|projections|jobs|job_runs|retention|audit|_sqlx_migrations)$'
                )
            )
        union all
        select proowner::regrole, format('alter function %s owner to reading_owner', p.oid::regprocedure)
        from pg_proc as p
        where pronamespace = 'public'::regnamespace and proowner <> 'reading_owner'::regrole
            and proname in (
                'analyze_shadow', 'append_events', 'append_tombstones', 'audit_begin', 'audit_end',
                'check_copy',
                'compare_shadow', 'create_month_partitions', 'create_shadow', 'drop_history_month',
                'drop_retired', 'drop_shadow', 'erase_reader', 'erase_reader_part', 'erase_sessions',
                'events_refuse_change', 'events_take_order_lock', 'month_bound', 'overwrite_events',
                'partitions_of', 'storage_of', 'swap_shadow'
            )
    loop
        if not pg_has_role(former, 'reading_owner', 'usage') then
            execute format('grant reading_owner to %s', former);
        end if;
        execute command;
    end loop;
end $$;
