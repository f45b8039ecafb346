//! Month partitions are created during traffic, and all have the same definition.

use sqlx::PgPool;
use tests::{Stack, app, scaled};

/// The definition of a partition without its name: columns, constraints, indexes
/// and triggers.
const DEFINITION: &str = "
    with partition as (select $1::regclass as id, to_char($2::date, 'YYYY_MM') as month)
    select replace(part, month, 'month') from partition, lateral (
        select concat_ws(' ', 'column', attnum, attname, atttypid::regtype, attcollation,
            attnotnull, attstorage, pg_get_expr(adbin, adrelid)) as part
        from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attrelid = id and attnum > 0
        union all
        select concat_ws(' ', 'constraint', conname, contype, coninhcount, conislocal,
            pg_get_constraintdef(oid)) from pg_constraint where conrelid = id
        union all
        select concat_ws(' ', 'index', pg_get_indexdef(indexrelid), inhparent::regclass)
        from pg_index left join pg_inherits on inhrelid = indexrelid where indrelid = id
        union all
        select concat_ws(' ', 'trigger', pg_get_triggerdef(oid), tgparentid <> 0)
        from pg_trigger where tgrelid = id
    ) as parts
    order by 1";

async fn definition(pool: &PgPool, table: &str, months_ahead: i32) -> Vec<String> {
    let (month, name): (chrono::NaiveDate, String) = sqlx::query_as(
        "select month::date, $1 || to_char(month, '\"_\"YYYY\"_\"MM') from (
            select date_trunc('month', now() at time zone 'UTC') + make_interval(months => $2)
        ) as t (month)",
    )
    .bind(table)
    .bind(months_ahead)
    .fetch_one(pool)
    .await
    .unwrap();
    sqlx::query_scalar(DEFINITION)
        .bind(name)
        .bind(month)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn create_ahead(pool: &PgPool, table: &str, months: i32) -> sqlx::Result<i32> {
    sqlx::query_scalar("select create_month_partitions($1::regclass, $2)")
        .bind(table)
        .bind(months)
        .fetch_one(pool)
        .await
}

#[tokio::test]
async fn partitions_created_later_equal_those_of_the_migration() {
    let pool = app::pool(&Stack::shared().await.new_env().await).await;
    for table in ["events", "read.history"] {
        assert_eq!(create_ahead(&pool, table, 5).await.unwrap(), 2);
        assert_eq!(create_ahead(&pool, table, 5).await.unwrap(), 0);
        let first = definition(&pool, table, 0).await;
        assert!(first.iter().any(|part| part.starts_with("index")));
        assert_eq!(definition(&pool, table, 5).await, first, "{table}");
    }
}

#[tokio::test]
async fn partitions_are_created_without_blocking_on_traffic() {
    let pool = app::pool(&Stack::shared().await.new_env().await).await;
    let mut busy = pool.begin().await.unwrap();
    for statement in [
        "lock table events, read.history in row exclusive mode",
        "select count(*) from events, read.history",
    ] {
        sqlx::query(statement).execute(&mut *busy).await.unwrap();
    }
    for table in ["events", "read.history"] {
        let created =
            tokio::time::timeout(scaled(app::SETTLE), create_ahead(&pool, table, 4)).await;
        assert_eq!(
            created.expect("no wait for the lock").unwrap(),
            1,
            "{table}"
        );
    }
    busy.commit().await.unwrap();
}
