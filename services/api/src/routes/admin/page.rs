//! Pages of lists.

/// Cuts rows to a page. The query has read one row more than `limit` if there is a next page;
/// then this returns the `cursor` of the last row of the page.
pub fn cut<T, C>(rows: &mut Vec<T>, limit: i64, cursor: impl FnOnce(&T) -> C) -> Option<C> {
    let size = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_next = rows.len() > size;
    rows.truncate(size);
    rows.last().filter(|_| has_next).map(cursor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_page_has_no_cursor() {
        for (read, expected) in [(0, None), (2, None), (3, Some(1))] {
            let mut rows: Vec<i64> = (0..read).collect();
            assert_eq!(cut(&mut rows, 2, |row| *row), expected);
            assert_eq!(rows.len(), usize::try_from(read).unwrap().min(2));
        }
    }
}
