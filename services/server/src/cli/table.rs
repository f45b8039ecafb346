//! Tables of text with aligned columns.

/// A column, by its alignment. Contains its header.
pub enum Column {
    /// For text.
    Left(&'static str),
    /// For numbers.
    Right(&'static str),
}

/// The header and the rows, one line each.
pub fn table<const N: usize>(columns: &[Column; N], rows: &[[String; N]]) -> String {
    let header = columns.each_ref().map(|column| match column {
        Column::Left(name) | Column::Right(name) => (*name).to_owned(),
    });
    let lines: Vec<&[String; N]> = std::iter::once(&header).chain(rows).collect();
    let width = |i: usize| {
        let widths = lines.iter().map(|line| line[i].chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let lines = lines.iter().map(|line| {
        let cells = line.iter().zip(columns).zip(widths);
        let cells: Vec<String> = cells
            .map(|((cell, column), width)| match column {
                Column::Left(_) => format!("{cell:<width$}"),
                Column::Right(_) => format!("{cell:>width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["longer".to_owned(), "1,000".to_owned()],
        ];
        let text = table(&[Column::Left("NAME"), Column::Right("N")], &rows);
        assert_eq!(text, "NAME        N\na           1\nlonger  1,000");
    }
}
