//! A cell as a table for the terminal.

use crate::figure::{Figure, Spread};

use super::model::{CellReport, Outcome, Report};
use super::{rank, text};

/// Between columns.
const GAP: usize = 2;
/// Longer notes stand below the table.
const NOTES_MAX: usize = 24;

/// The cell as a table for a terminal that is `width` columns wide: a row for each system, the best first, and below it what else
/// must be known. Columns that do not fit stand in further tables below. There are no colours in it. It ends with a new line.
pub fn table(report: &Report, cell: &CellReport, width: usize) -> String {
    let outcomes = rank::ranked(report, cell);
    let mut columns = vec![ratio_column(cell, &outcomes), range_column(cell, &outcomes)];
    let measured = |figure: &&Figure| outcomes.iter().any(|outcome| outcome.figures.contains_key(&figure.key));
    columns.extend(report.figures.iter().filter(measured).map(|figure| figure_column(figure, &outcomes)));
    let notes = notes_column(&outcomes);
    let notes_below = notes.width > NOTES_MAX;
    if !notes_below && notes.width > notes.head[0].len() {
        columns.push(notes);
    }

    let mut lines = wrapped("", &format!("{}: {}", text::plain(&cell.name), text::plain(&cell.about)), width);
    if !outcomes.is_empty() {
        let names = names_column(&outcomes);
        for block in blocks(columns, width.saturating_sub(names.width)) {
            lines.push(String::new());
            lines.extend(aligned(&names, &block));
        }
        lines.push(String::new());
    }
    for line in remarks(report, cell, &outcomes, notes_below) {
        lines.extend(wrapped("  ", &line, width));
    }
    lines.join("\n") + "\n"
}

/// One column: what stands above it, and a text for each row.
pub(super) struct Column {
    head: [String; 2],
    rows: Vec<String>,
    width: usize,
    right: bool,
}

impl Column {
    pub(super) fn new(head: [&str; 2], right: bool, rows: Vec<String>) -> Self {
        let head = head.map(text::plain);
        let width = head.iter().chain(&rows).map(|text| columns_of(text)).max().unwrap_or(0);
        Self { head, rows, width, right }
    }

    /// A text of the column, brought to its width.
    pub(super) fn pad(&self, text: &str) -> String {
        let space = " ".repeat(self.width.saturating_sub(columns_of(text)));
        if self.right { format!("{space}{text}") } else { format!("{text}{space}") }
    }
}

/// How many columns of a terminal the text takes: names and units are of letters that take one.
pub(super) fn columns_of(text: &str) -> usize {
    text.chars().count()
}

fn names_column(outcomes: &[&Outcome]) -> Column {
    Column::new(["system", ""], false, outcomes.iter().map(|outcome| text::plain(&outcome.system)).collect())
}

fn ratio_column(cell: &CellReport, outcomes: &[&Outcome]) -> Column {
    let ratio = |outcome: &&Outcome| match outcome.ratio {
        _ if outcome.system == cell.reference => "1".into(),
        Some(ratio) => text::ratio(ratio.median),
        None => "–".into(),
    };
    Column::new(["ratio", ""], true, outcomes.iter().map(ratio).collect())
}

fn range_column(cell: &CellReport, outcomes: &[&Outcome]) -> Column {
    let range = |outcome: &&Outcome| match outcome.ratio {
        _ if outcome.system == cell.reference => "reference".into(),
        Some(Spread { min, max, .. }) => format!("{}..{}", text::ratio(min), text::ratio(max)),
        None => String::new(),
    };
    Column::new(["range", ""], false, outcomes.iter().map(range).collect())
}

fn figure_column(figure: &Figure, outcomes: &[&Outcome]) -> Column {
    let value = |outcome: &&Outcome| match outcome.figures.get(&figure.key) {
        Some(spread) if text::moved(spread) => {
            format!("{} ({}..{})", text::number(spread.median), text::number(spread.min), text::number(spread.max))
        }
        Some(spread) => text::number(spread.median),
        None => "–".into(),
    };
    let mut rows: Vec<String> = outcomes.iter().map(value).collect();
    // Medians stand below each other, whether or not a range follows.
    let ranges = |row: &String| row.find(" (").map_or(0, |at| columns_of(&row[at..]));
    let longest = rows.iter().map(ranges).max().unwrap_or(0);
    for row in &mut rows {
        let missing = longest - ranges(row);
        row.push_str(&" ".repeat(missing));
    }
    let head = [&figure.title, &figure.unit].map(|head| format!("{head}{}", " ".repeat(longest)));
    let fits = head.iter().all(|head| columns_of(head) <= rows.iter().map(|row| columns_of(row)).max().unwrap_or(0));
    let [title, unit] = if fits { [head[0].as_str(), &head[1]] } else { [figure.title.as_str(), &figure.unit] };
    Column { head: [title, unit].map(str::to_owned), ..Column::new([title, unit], true, rows) }
}

fn notes_column(outcomes: &[&Outcome]) -> Column {
    let notes = outcomes.iter().map(|outcome| text::plain(&outcome.notes.join("; "))).collect();
    Column::new(["notes", ""], false, notes)
}

/// As many columns side by side as the width allows, at least one.
pub(super) fn blocks(columns: Vec<Column>, width: usize) -> Vec<Vec<Column>> {
    let mut blocks: Vec<Vec<Column>> = Vec::new();
    let mut used = 0;
    for column in columns {
        used += GAP + column.width;
        match blocks.last_mut() {
            Some(block) if used <= width => block.push(column),
            _ => {
                used = GAP + column.width;
                blocks.push(vec![column]);
            }
        }
    }
    blocks
}

/// The lines of one block.
pub(super) fn aligned(names: &Column, columns: &[Column]) -> Vec<String> {
    let line = |cell: &dyn Fn(&Column) -> &str| {
        let cells: Vec<String> = [names].into_iter().chain(columns).map(|column| column.pad(cell(column))).collect();
        cells.join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let mut lines = vec![line(&|column| column.head[0].as_str()), line(&|column| column.head[1].as_str())];
    lines.retain(|line| !line.is_empty());
    lines.extend((0..names.rows.len()).map(|row| line(&|column: &Column| column.rows[row].as_str())));
    lines
}

/// What stands below the table.
fn remarks(report: &Report, cell: &CellReport, outcomes: &[&Outcome], notes: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if cell.too_noisy {
        lines.push("too noisy: over half of the rounds were rejected, do not rely on these figures".to_owned());
    }
    for outcome in outcomes.iter().filter(|outcome| notes && !outcome.notes.is_empty()) {
        lines.push(format!("{}: {}", outcome.system, outcome.notes.join("; ")));
    }
    let rejected: Vec<String> = (cell.rounds.iter().filter(|round| !round.accepted))
        .map(|round| format!("round {}, control moved by {}", round.number, text::percent(round.control_moved)))
        .collect();
    if !rejected.is_empty() {
        let rounds = text::plural(cell.rounds.len(), "round", "rounds");
        lines.push(format!("rejected: {} of {rounds} ({})", rejected.len(), rejected.join("; ")));
    }
    lines.extend(cell.failed.iter().map(|(system, how)| format!("failed: {system}: {how}")));
    lines.extend(cell.unable.iter().map(|(system, why)| format!("unable: {system}: {why}")));
    if !report.absent.is_empty() {
        let names: Vec<&str> = report.absent.iter().map(|absent| absent.name.as_str()).collect();
        lines.push(format!("absent: {}", names.join(", ")));
    }
    lines.into_iter().map(|line| text::plain(&line)).collect()
}

/// The text in lines no wider than asked, as far as its words allow; lines after the first are further in.
fn wrapped(indent: &str, words: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && columns_of(&line) + 1 + columns_of(word) > width {
            lines.push(line);
            line = format!("{indent}  ");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}
