//! Hints about a book, a zone or a place in the text never refuse a reading.

use super::*;

use rstest::rstest;
use serde_json::json;
use tests::reader::id;

#[tokio::test]
async fn unknown_fields_of_a_book_are_ignored_with_a_warning() {
    let app = App::start().await;
    let reader = app.reader();
    let start = json!({
        "book_id": Uuid::new_v4(), "book": {
            "title": "Momo", "author": "Michael Ende", "total_pages": 300,
            "isbn": "9783522202558", "language": "de", "series": { "name": "none", "number": 1 },
        },
    });
    let started = reader.start_with(start).await;
    assert_eq!(started.status, 201, "{}", started.body);
    let started = started.ok();
    let kept = json!({ "title": "Momo", "author": "Michael Ende", "total_pages": 300 });
    assert_eq!(started["book"], kept);
    let warnings = started["warnings"].as_array().unwrap();
    assert!(!warnings.is_empty(), "{started}");
    let text = started["warnings"].to_string();
    for field in ["isbn", "language", "series"] {
        assert!(text.contains(field), "{text}");
    }
    // A warning belongs to the response of the command.
    let session = reader.session(id(&started)).await.ok();
    assert_eq!(session["warnings"], Value::Null);
    assert_eq!(session["book"], kept);

    let session = json!({
        "session_id": id_of(clock::now()), "book_id": Uuid::new_v4(),
        "started_at": minutes_ago(5), "book": { "title": "Momo", "isbn": "9783522202558" },
    });
    let synced = reader.sync(json!({ "sessions": [session] })).await.ok();
    assert!(synced.to_string().contains("isbn"), "{synced}");
    invariants::check(&app).await;
}

#[tokio::test]
async fn long_title_is_cut_with_a_warning() {
    let app = App::start().await;
    let reader = app.reader();
    for text in ["x".repeat(5_000), "🏳️‍🌈".repeat(2_000)] {
        let start = json!({ "book_id": Uuid::new_v4(), "book": { "title": text, "author": text } });
        let started = reader.start_with(start).await;
        assert_eq!(started.status, 201, "{}", started.body);
        let started = started.ok();
        for field in ["title", "author"] {
            let kept = started["book"][field].as_str().unwrap();
            assert!(!kept.is_empty() && text.starts_with(kept), "{kept}");
            assert!(kept.len() < text.len());
            let warnings = started["warnings"].as_array().unwrap();
            let about = |warning: &Value| warning["field"] == format!("book.{field}");
            assert!(warnings.iter().any(about), "{warnings:?}");
        }
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn titles_in_any_script_are_kept_unchanged() {
    let app = App::start().await;
    let reader = app.reader();
    for title in [
        "📚🏳️‍🌈👩🏽‍🚀",
        "אבג \u{202e}abc\u{202c} دهو",
        "Z\u{335}a\u{30a}l\u{301}g\u{331}o\u{324}",
        "e\u{301} is not é",
        "\u{200b}\u{feff}",
        "' \" \\ </script> %s {}",
    ] {
        let start = json!({ "book_id": Uuid::new_v4(), "book": { "title": title } });
        let started = reader.start_with(start).await.ok();
        assert_eq!(started["book"]["title"], title);
        assert_eq!(started["warnings"], Value::Null, "{title}");
        app.settled().await;
        let history = reader.history("?page_size=1").await.ok();
        assert_eq!(history["sessions"][0]["book"]["title"], title);
        let active = reader.active().await.ok();
        assert_eq!(active["book"]["title"], title);
    }
    invariants::check(&app).await;
}

#[tokio::test]
async fn book_id_may_be_in_upper_case_or_without_hyphens() {
    let app = App::start().await;
    let reader = app.reader();
    let book = Uuid::from_u128(0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72);
    for written in [
        book.to_string(),
        book.to_string().to_uppercase(),
        book.simple().to_string(),
        book.simple().to_string().to_uppercase(),
        book.urn().to_string(),
        book.braced().to_string(),
    ] {
        let started = reader.start_with(json!({ "book_id": written })).await.ok();
        assert_eq!(started["book_id"], book.to_string(), "{written}");
    }
    app.settled().await;
    let history = reader.history(&format!("?book_id={}", book.simple())).await;
    assert_eq!(history.ok()["total"], 6);
}

#[tokio::test]
async fn long_locators_are_kept_by_every_command() {
    let app = App::start().await;
    let reader = app.reader();
    let locator = |name: &str, length: usize| format!("{name}{}", "(/6/4!)".repeat(length / 7));
    let begin = minutes_ago(10);
    let start = json!({
        "book_id": Uuid::new_v4(), "occurred_at": begin, "locator": locator("start", 2_500),
    });
    let started = reader.start_with(start).await.ok();
    assert_eq!(started["locator"], locator("start", 2_500));
    let session = id(&started);
    let update = json!({
        "current_position": 1, "occurred_at": begin + minutes(1),
        "locator": locator("update", 8_000),
    });
    let updated = reader.update_with(session, update).await.ok();
    assert_eq!(updated["locator"], locator("update", 8_000));
    let item = json!({
        "session_id": session, "current_position": 2, "occurred_at": begin + minutes(2),
        "locator": locator("batch", 2_500),
    });
    let _ = reader.batch(json!([item])).await.ok();
    assert_eq!(
        reader.session(session).await.ok()["locator"],
        locator("batch", 2_500)
    );
    let synced = json!({ "sessions": [{
        "session_id": session, "book_id": started["book_id"], "started_at": begin,
        "observations": [{
            "current_position": 3, "occurred_at": begin + minutes(3),
            "locator": locator("sync", 2_500),
        }],
    }] });
    let _ = reader.sync(synced).await.ok();
    assert_eq!(
        reader.session(session).await.ok()["locator"],
        locator("sync", 2_500)
    );
    let end = json!({
        "end_position": 4, "occurred_at": begin + minutes(4), "locator": locator("end", 2_500),
    });
    let ended = reader.end(session, end).await.ok();
    assert_eq!(ended["locator"], locator("end", 2_500));
    app.settled().await;
    assert_eq!(reader.session(session).await.ok(), ended);
    assert_eq!(reader.history("").await.ok()["sessions"][0], ended);
    invariants::check(&app).await;
}

/// The place of an end belongs to its position.
#[tokio::test]
async fn locator_of_an_end_is_kept_or_follows_the_latest_observation() {
    let app = App::start().await;
    let begin = minutes_ago(10);
    let last = json!({
        "current_position": 50, "occurred_at": begin + minutes(1), "locator": "update",
    });
    for (end, locator) in [
        (
            json!({ "end_position": 60, "locator": "end" }),
            json!("end"),
        ),
        (
            json!({ "end_position": 50, "locator": "end" }),
            json!("end"),
        ),
        (json!({}), json!("update")),
        (json!({ "end_position": 60 }), Value::Null),
    ] {
        let reader = app.reader();
        let start = json!({ "book_id": Uuid::new_v4(), "occurred_at": begin });
        let session = id(&reader.start_with(start).await.ok());
        let _ = reader.update_with(session, last.clone()).await.ok();
        let mut timed = end.clone();
        timed["occurred_at"] = json!(begin + minutes(2));
        let ended = reader.end(session, timed).await.ok();
        assert_eq!(ended["locator"], locator, "{end}");
    }
    invariants::check(&app).await;
}

#[rstest]
#[case::slightly_above_100(json!(100.000_000_000_000_01), 100.0)]
#[case::slightly_below_0(json!(-1e-13), 0.0)]
#[case::negative_zero(json!(-0.0), 0.0)]
#[case::sum_of_floats(json!(0.1 + 0.2), 0.3)]
#[case::text(json!("100.00000000000001"), 100.0)]
#[case::rounds_to_100(json!(100.000_049), 100.0)]
#[case::rounds_to_0(json!(-0.000_049), 0.0)]
#[case::single_precision(json!(f64::from(33.3_f32)), 33.3)]
#[tokio::test]
async fn float_noise_is_rounded_before_the_range_is_checked(
    #[case] sent: Value,
    #[case] kept: f64,
) {
    let app = App::start().await;
    let reader = app.reader();
    let begin = minutes_ago(10);
    let kept = if kept.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "0 or 100")]
        let whole = kept as i64;
        json!(whole)
    } else {
        json!(kept)
    };
    let start = json!({
        "book_id": Uuid::new_v4(), "occurred_at": begin, "start_position": sent,
    });
    let started = reader.start_with(start).await.ok();
    assert_eq!(started["start_position"], kept);
    let session = id(&started);
    let update =
        |minute: i64| json!({ "current_position": sent, "occurred_at": begin + minutes(minute) });
    let updated = reader.update_with(session, update(1)).await.ok();
    assert_eq!(updated["end_position"], kept);
    let mut item = update(2);
    item["session_id"] = json!(session);
    assert_eq!(reader.batch(json!([item])).await.ok()["success_count"], 1);
    let synced = json!({ "sessions": [{
        "session_id": session, "book_id": started["book_id"], "started_at": begin,
        "start_position": sent, "observations": [update(3)],
    }] });
    let _ = reader.sync(synced).await.ok();
    let end = json!({ "end_position": sent, "occurred_at": begin + minutes(4) });
    let ended = reader.end(session, end).await.ok();
    assert_fields(
        &ended,
        &json!({ "end_position": kept, "furthest_position": kept, "active_seconds": 240 }),
    );
    invariants::check(&app).await;
}

#[tokio::test]
async fn position_outside_the_book_is_refused() {
    let app = App::start().await;
    let reader = app.reader();
    let session = id(&reader.start(Uuid::new_v4()).await.ok());
    for position in [
        json!(100.0001),
        json!(-0.0001),
        json!(1e300),
        json!("-1e-13x"),
    ] {
        let update = json!({ "current_position": position });
        let _ = reader.update_with(session, update).await.problem(422);
        let end = json!({ "end_position": position });
        let _ = reader.end(session, end).await.problem(422);
    }
    assert_eq!(invariants::read_log(&app.pool).await.len(), 1);
}
