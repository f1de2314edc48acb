//! Each cell: bars, and a table of all figures.

use crate::figure::{Figure, Spread};

use super::super::model::{CellReport, Outcome, Report};
use super::super::plot::{self, Bar};
use super::super::rank;
use super::super::text::{self, Escaped};
use super::{figure_number, headline_link};

/// The section of all cells.
pub(super) fn section(report: &Report) -> String {
    let mut html = String::from(
        "<section id=\"cells\">\n<h2>All cells</h2>\n<p>Bars show the median ratio, whiskers reach from the smallest \
         round to the largest. In the tables are medians; the range stands below where it is over 10 %. The head of a \
         column leads to what it means.</p>\n",
    );
    for (number, cell) in report.cells.iter().enumerate() {
        html.push_str(&one(report, number, cell));
    }
    html.push_str("</section>\n");
    html
}

fn one(report: &Report, number: usize, cell: &CellReport) -> String {
    let outcomes = rank::ranked(report, cell);
    let mut html = format!(
        "<article id=\"cell-{number}\">\n<h3>{}</h3>\n<p class=\"about\">{}</p>\n",
        Escaped(&cell.name),
        Escaped(&cell.about)
    );
    if cell.too_noisy {
        html.push_str(
            "<p class=\"alert\"><strong>Too noisy.</strong> Over half of the rounds were rejected: do not rely on these figures.</p>\n",
        );
    }
    let bars: Vec<Bar<'_>> = outcomes
        .iter()
        .filter_map(|outcome| {
            Some(Bar {
                name: &outcome.system,
                ours: rank::is_ours(report, &outcome.system),
                reference: outcome.system == cell.reference,
                ratio: outcome.ratio?,
                notes: &outcome.notes,
            })
        })
        .collect();
    if !bars.is_empty() {
        html.push_str(&format!("<h4>Ratio by {}; 1× is {}</h4>\n", headline_link(report), Escaped(&cell.reference)));
        html.push_str(&plot::bars(&bars));
    }
    if !outcomes.is_empty() {
        html.push_str(&table(report, cell, &outcomes));
    }
    html.push_str(&remarks(cell));
    html.push_str("</article>\n");
    html
}

/// All figures of all systems.
fn table(report: &Report, cell: &CellReport, outcomes: &[&Outcome]) -> String {
    let measured = |figure: &&Figure| outcomes.iter().any(|outcome| outcome.figures.contains_key(&figure.key));
    let figures: Vec<&Figure> = report.figures.iter().filter(measured).collect();
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"values\">\n<thead><tr><th scope=\"col\">System</th><th scope=\"col\">ratio<small>× reference</small></th>",
    );
    for figure in &figures {
        html.push_str(&format!(
            "<th scope=\"col\"><a href=\"#figure-{}\" title=\"{}\">{}</a><small>{}</small></th>",
            figure_number(report, figure),
            Escaped(&figure.meaning),
            Escaped(&figure.title),
            Escaped(&figure.unit),
        ));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for outcome in outcomes {
        let reference = outcome.system == cell.reference;
        html.push_str(&format!(
            "<tr{}><th scope=\"row\">{}{}{}</th>",
            if rank::is_ours(report, &outcome.system) { " class=\"ours\"" } else { "" },
            Escaped(&outcome.system),
            if reference { " <em class=\"note\">reference</em>" } else { "" },
            outcome.notes.iter().map(|note| format!(" <em class=\"note\">{}</em>", Escaped(note))).collect::<String>(),
        ));
        html.push_str(&value(
            outcome.ratio.as_ref().filter(|_| !reference),
            text::ratio,
            if reference { "1" } else { "–" },
        ));
        for figure in &figures {
            html.push_str(&value(outcome.figures.get(&figure.key), text::number, "–"));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

fn value(spread: Option<&Spread>, shown: fn(f64) -> String, missing: &str) -> String {
    let Some(spread) = spread else { return format!("<td class=\"none\">{missing}</td>") };
    let range = if text::moved(spread) {
        format!("<small>{}–{}</small>", shown(spread.min), shown(spread.max))
    } else {
        String::new()
    };
    format!("<td>{}{range}</td>", shown(spread.median))
}

/// Rounds that do not count, and who was not measured.
fn remarks(cell: &CellReport) -> String {
    let mut items = Vec::new();
    let rejected: Vec<String> = (cell.rounds.iter().filter(|round| !round.accepted))
        .map(|round| format!("round {} (by {})", round.number, text::percent(round.control_moved)))
        .collect();
    if rejected.is_empty() {
        items.push(format!("{}, all accepted.", text::plural(cell.rounds.len(), "round", "rounds")));
    } else {
        items.push(format!(
            "<b>{} of {} rejected</b>, as the control system moved: {}.",
            rejected.len(),
            text::plural(cell.rounds.len(), "round", "rounds"),
            text::list(&rejected),
        ));
    }
    let named = |word: &str, entries: &[(String, String)], class: &str| -> Vec<String> {
        let item = |(system, why): &(String, String)| {
            format!("<b class=\"{class}\">{word}: {}</b>: {}", Escaped(system), Escaped(why))
        };
        entries.iter().map(item).collect()
    };
    items.extend(named("Failed", &cell.failed, "bad"));
    items.extend(named("Unable", &cell.unable, "mild"));
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<ul class=\"remarks\">\n{items}</ul>\n")
}
