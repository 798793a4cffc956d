//! Tables: columns as wide as their widest cell, three spaces between them.

/// Lays rows out. The last column is not padded.
#[must_use]
pub fn render(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        fit(&mut widths, row);
    }
    let mut text = String::new();
    for row in rows {
        push_row(&mut text, row, &widths);
    }
    text
}

/// Lays rows out as they come, for watches: widths only grow.
#[derive(Debug, Default)]
pub struct Growing {
    widths: Vec<usize>,
}

impl Growing {
    /// Lays the next rows out.
    pub fn render(&mut self, rows: &[Vec<String>]) -> String {
        let mut text = String::new();
        for row in rows {
            fit(&mut self.widths, row);
        }
        for row in rows {
            push_row(&mut text, row, &self.widths);
        }
        text
    }
}

fn fit(widths: &mut Vec<usize>, row: &[String]) {
    widths.resize(widths.len().max(row.len()), 0);
    for (width, cell) in widths.iter_mut().zip(row) {
        *width = (*width).max(cell.chars().count());
    }
}

fn push_row(text: &mut String, row: &[String], widths: &[usize]) {
    for (i, cell) in row.iter().enumerate() {
        text.push_str(cell);
        if i + 1 < row.len() {
            let padding = widths[i].saturating_sub(cell.chars().count()) + 3;
            text.extend(std::iter::repeat_n(' ', padding));
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&str]) -> Vec<Vec<String>> {
        text.iter().map(|row| row.split('|').map(str::to_owned).collect()).collect()
    }

    #[test]
    fn columns_are_aligned() {
        let text = render(&rows(&["NAME|AGE", "a-long-name|5s", "b|10d"]));
        assert_eq!(text, "NAME          AGE\na-long-name   5s\nb             10d\n");
    }

    #[test]
    fn a_watch_keeps_its_columns() {
        let mut table = Growing::default();
        assert_eq!(table.render(&rows(&["NAME|AGE", "abcdef|1s"])), "NAME     AGE\nabcdef   1s\n");
        assert_eq!(table.render(&rows(&["x|2s"])), "x        2s\n");
    }
}
