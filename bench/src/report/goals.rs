//! What the project is to reach and what was seen of it, as a table for the terminal and as one for the page.

use crate::figure::{Better, Spread};

use super::model::{Goal, Report, Seen};
use super::table::{Column, aligned, blocks, columns_of};
use super::text::{self, Escaped};

/// The table for a terminal that is `width` columns wide, or nothing if the report has no goals. It ends with a new line.
pub fn table(report: &Report, width: usize) -> String {
    let goals = &report.goals;
    if goals.is_empty() {
        return String::new();
    }
    let column = |head: &str, right, cell: &dyn Fn(&Goal) -> String| {
        Column::new([head, ""], right, goals.iter().map(|goal| text::plain(&cell(goal))).collect())
    };
    let names = column("target", false, &|goal| goal.line.clone());
    let mut columns = vec![
        column("wanted", true, &wanted),
        column("stretch", true, &stretch),
        column("seen", true, &|goal| seen(goal, |spread| number(spread.median, goal))),
        column("range", false, &|goal| seen(goal, |spread| range(spread, goal))),
        column("", false, &|goal| goal.verdict().to_owned()),
    ];
    columns.extend(conditions(goals).into_iter().map(|name| column(&name, true, &|goal| beside(goal, &name))));
    let mut lines = vec![String::from("What is to be reached, by medians of the ratios within a round:")];
    let width = width.saturating_sub(columns_of(&names.pad("")));
    for block in blocks(columns, width) {
        lines.push(String::new());
        lines.extend(aligned(&names, &block));
    }
    lines.join("\n") + "\n"
}

/// The section of the page, or nothing if the report has no goals.
pub(super) fn section(report: &Report) -> String {
    let goals = &report.goals;
    if goals.is_empty() {
        return String::new();
    }
    let others = conditions(goals);
    let head = |name: &str| format!("<th scope=\"col\">{}</th>", Escaped(name));
    let heads: String = ["Target", "Wanted", "Stretch", "Seen", "Verdict"].into_iter().map(head).collect();
    let mut html = format!(
        "<section id=\"targets\">\n<h2>Targets</h2>\n<p>What is to be reached: at least, where more is better, else at \
         most. Seen is the median over the rounds of a number made within each round; the last columns are the same \
         under other conditions.</p>\n<div class=\"scroll\"><table class=\"values\">\n<thead><tr>{heads}{}</tr></thead>\n\
         <tbody>\n",
        others.iter().map(|name| head(name)).collect::<String>(),
    );
    for goal in goals {
        let class = match goal.reached() {
            Some(true) if !goal.too_noisy => "ahead",
            Some(false) if !goal.too_noisy => "behind",
            Some(_) | None => "none",
        };
        let spread = match &goal.seen {
            Seen::Median(spread) => {
                format!("<td>{}<small>{}</small></td>", number(spread.median, goal), Escaped(&range(spread, goal)))
            }
            Seen::Nothing(_) => "<td class=\"none\">–</td>".into(),
        };
        html.push_str(&format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>{spread}<td class=\"{class}\">{}</td>",
            Escaped(&goal.line),
            Escaped(&wanted(goal)),
            Escaped(&stretch(goal)),
            Escaped(goal.verdict()),
        ));
        html.extend(others.iter().map(|name| format!("<td>{}</td>", Escaped(&beside(goal, name)))));
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n</section>\n");
    html
}

/// Under which other conditions any goal was seen, each once.
fn conditions(goals: &[Goal]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in goals.iter().flat_map(|goal| &goal.beside) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn number(value: f64, goal: &Goal) -> String {
    let gap = if goal.unit == "x" { "" } else { " " };
    format!("{}{gap}{}", text::ratio(value), goal.unit)
}

fn limit(value: f64, goal: &Goal) -> String {
    let sign = if goal.better == Better::Lower { '≤' } else { '≥' };
    format!("{sign} {}", number(value, goal))
}

fn wanted(goal: &Goal) -> String {
    limit(goal.target, goal)
}

fn stretch(goal: &Goal) -> String {
    goal.stretch.map_or_else(String::new, |stretch| limit(stretch, goal))
}

fn seen(goal: &Goal, show: impl Fn(&Spread) -> String) -> String {
    match &goal.seen {
        Seen::Median(spread) => show(spread),
        Seen::Nothing(_) => "–".into(),
    }
}

fn range(spread: &Spread, goal: &Goal) -> String {
    format!("{}..{}", text::ratio(spread.min), number(spread.max, goal))
}

fn beside(goal: &Goal, name: &str) -> String {
    let found = goal.beside.iter().find(|(known, _)| known == name);
    found.map_or_else(String::new, |(_, spread)| number(spread.median, goal))
}
