//! The outcome as one page that needs nothing else: HTML with the style and the drawings inside, no script, nothing to fetch.
//!
//! It is well-formed as XML too, so that a test can read it. Every text of a report passes `Escaped`.

mod cell;
mod curve;
mod summary;

use time::OffsetDateTime;

use crate::figure::{Better, Figure};

use super::goals;
use super::model::Report;
use super::rank;
use super::text::{self, Escaped};

const STYLE: &str = include_str!("page/style.css");

/// The page.
pub fn page(report: &Report) -> String {
    let groups = curve::groups(report);
    let parts = [
        head(report, !groups.is_empty()),
        summary::section(report),
        goals::section(report),
        curve::section(report, &groups),
        cell::section(report),
        reading(report),
        systems(report),
        conditions(report),
        not_measured(report),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n{}</body>\n</html>\n",
        Escaped(&report.title),
        parts.concat(),
    )
}

/// What it is, on what machine, and what has to be known before all else.
fn head(report: &Report, curves: bool) -> String {
    let mut html = format!(
        "<header>\n<p class=\"kind\">bench {}</p>\n<h1>{}</h1>\n",
        Escaped(&report.bench),
        Escaped(&report.title)
    );
    for paragraph in report.about.split("\n\n").filter(|paragraph| !paragraph.trim().is_empty()) {
        html.push_str(&format!("<p class=\"about\">{}</p>\n", Escaped(paragraph)));
    }
    if !report.complete {
        html.push_str(
            "<p class=\"alert\"><strong>Not complete.</strong> The run was stopped before all cells were measured; \
             what is here is as measured until then.</p>\n",
        );
    }
    let failed: usize = report.cells.iter().map(|cell| cell.failed.len()).sum();
    if failed > 0 {
        html.push_str(&format!(
            "<p class=\"alert\"><strong>Failed.</strong> {} did not work; see <a href=\"#missing\">what was not measured</a>.</p>\n",
            text::plural(failed, "trial of a system that is installed", "trials of systems that are installed"),
        ));
    }
    html.push_str("<dl class=\"facts\">\n");
    let (started, took) = (started(report.started), text::duration(report.seconds));
    let facts = [("started", started.as_str()), ("took", &took)].into_iter();
    for (name, value) in facts.chain(report.machine.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        html.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", Escaped(name), Escaped(value)));
    }
    html.push_str(&format!(
        "</dl>\n<p class=\"command\"><span>made by</span> <code>{}</code></p>\n<nav><a href=\"#summary\">Summary</a>",
        Escaped(&report.command)
    ));
    let links = [
        ("targets", "Targets", !report.goals.is_empty()),
        ("curves", "Curves", curves),
        ("cells", "All cells", true),
        ("reading", "How to read it", true),
        ("systems", "Systems", true),
        ("conditions", "Conditions", !report.settings.is_empty()),
        ("missing", "Not measured", is_missing(report)),
    ];
    for (anchor, name, _) in links.into_iter().filter(|(.., there)| *there) {
        html.push_str(&format!(" <a href=\"#{anchor}\">{name}</a>"));
    }
    html.push_str("</nav>\n</header>\n");
    html
}

/// `2026-11-23, 14:05 UTC`.
fn started(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or_else(String::new, |time| format!("{}, {:02}:{:02} UTC", time.date(), time.hour(), time.minute()))
}

/// The words, and every figure.
fn reading(report: &Report) -> String {
    let headline = rank::headline_name(report);
    let turned = match rank::headline(report).map(|figure| figure.better) {
        Some(Better::Lower) => ", turned over since less is better",
        Some(Better::Higher | Better::Neither) | None => "",
    };
    let mut html = format!(
        "<section id=\"reading\">\n<h2>How to read it</h2>\n<dl class=\"words\">\n\
         <dt>Cell</dt><dd>One kind of load. Its name abbreviates the words that stand beside it.</dd>\n\
         <dt>Round</dt><dd>All systems measured one after the other, within a minute or so. What the machine does besides meets them \
         alike, so systems are compared within a round, and never across.</dd>\n\
         <dt>Ratio</dt><dd>The {headline} of a system as a multiple of the reference’s in the same round{turned}: 2× is twice as good. \
         Shown is the median over the rounds, and the range from the smallest to the largest.</dd>\n\
         <dt>Reference</dt><dd>The system that the others of a cell are compared with; its own ratio is 1×.</dd>\n\
         <dt>Rejected round</dt><dd>A control system runs before and after the others. Where its two results differ by over 10 %, the \
         machine was busy with something else, and the round does not count. A cell that lost over half of its rounds is marked \
         as too noisy.</dd>\n</dl>\n",
        headline = Escaped(&headline),
    );
    html.push_str(
        "<h3>Figures</h3>\n<div class=\"scroll\"><table class=\"figures\">\n<thead><tr><th scope=\"col\">Figure</th>\
         <th scope=\"col\">Unit</th><th scope=\"col\">Better</th><th scope=\"col\">What it is</th></tr></thead>\n<tbody>\n",
    );
    for figure in &report.figures {
        html.push_str(&format!(
            "<tr id=\"figure-{}\"><th scope=\"row\">{}{}</th><td>{}</td><td>{}</td><td class=\"prose\">{}</td></tr>\n",
            figure_number(report, figure),
            Escaped(&figure.title),
            if figure.key == report.headline { " <em class=\"note\">ranks</em>" } else { "" },
            Escaped(&figure.unit),
            match figure.better {
                Better::Lower => "lower",
                Better::Higher => "higher",
                Better::Neither => "–",
            },
            Escaped(&figure.meaning),
        ));
    }
    html.push_str("</tbody>\n</table></div>\n</section>\n");
    html
}

/// The name of the headline figure, linked with its meaning.
fn headline_link(report: &Report) -> String {
    let name = rank::headline_name(report);
    match rank::headline(report) {
        Some(figure) => format!("<a href=\"#figure-{}\">{}</a>", figure_number(report, figure), Escaped(&name)),
        None => Escaped(&name).to_string(),
    }
}

/// By which the meaning of a figure is linked.
fn figure_number(report: &Report, figure: &Figure) -> usize {
    report.figures.iter().position(|other| other.key == figure.key).unwrap_or(0)
}

fn systems(report: &Report) -> String {
    let mut html = String::from(
        "<section id=\"systems\">\n<h2>Systems</h2>\n<div class=\"scroll\"><table class=\"figures\">\n<thead><tr>\
         <th scope=\"col\">System</th><th scope=\"col\">Version</th><th scope=\"col\">What it is</th></tr></thead>\n<tbody>\n",
    );
    for system in &report.systems {
        html.push_str(&format!(
            "<tr{}><th scope=\"row\">{}</th><td>{}</td><td class=\"prose\">{}</td></tr>\n",
            if system.ours { " class=\"ours\"" } else { "" },
            Escaped(&system.name),
            Escaped(&system.version),
            Escaped(&system.about),
        ));
    }
    html.push_str("</tbody>\n</table></div>\n</section>\n");
    html
}

fn conditions(report: &Report) -> String {
    if report.settings.is_empty() {
        return String::new();
    }
    let mut html =
        String::from("<section id=\"conditions\">\n<h2>Conditions, equal for all</h2>\n<dl class=\"words\">\n");
    for (name, value) in &report.settings {
        html.push_str(&format!("<dt>{}</dt><dd>{}</dd>\n", Escaped(name), Escaped(value)));
    }
    html.push_str("</dl>\n</section>\n");
    html
}

fn is_missing(report: &Report) -> bool {
    !report.absent.is_empty() || report.cells.iter().any(|cell| !cell.unable.is_empty() || !cell.failed.is_empty())
}

/// What is absent, unable, or failed.
fn not_measured(report: &Report) -> String {
    if !is_missing(report) {
        return String::new();
    }
    let mut html = String::from("<section id=\"missing\">\n<h2>Not measured</h2>\n");
    if !report.absent.is_empty() {
        html.push_str("<h3>Not installed</h3>\n<ul>\n");
        for absent in &report.absent {
            html.push_str(&format!("<li>{}: <code>{}</code></li>\n", Escaped(&absent.name), Escaped(&absent.how)));
        }
        html.push_str("</ul>\n");
    }
    html.push_str(&by_reason(report, "Failed", &|cell| &cell.failed));
    html.push_str(&by_reason(report, "Unable", &|cell| &cell.unable));
    html.push_str("</section>\n");
    html
}

/// A list of systems with the reason and the cells.
fn by_reason(report: &Report, title: &str, of: &dyn Fn(&super::CellReport) -> &Vec<(String, String)>) -> String {
    let mut reasons: Vec<(&(String, String), Vec<usize>)> = Vec::new();
    for (number, cell) in report.cells.iter().enumerate() {
        for entry in of(cell) {
            match reasons.iter_mut().find(|(known, _)| *known == entry) {
                Some((_, cells)) => cells.push(number),
                None => reasons.push((entry, vec![number])),
            }
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut html = format!("<h3>{title}</h3>\n<ul>\n");
    for ((system, reason), cells) in reasons {
        let links: Vec<String> = cells
            .iter()
            .map(|number| format!("<a href=\"#cell-{number}\">{}</a>", Escaped(&report.cells[*number].name)))
            .collect();
        let links = if cells.len() == report.cells.len() { "all cells".to_owned() } else { text::list(&links) };
        html.push_str(&format!("<li><b>{}</b>, in {links}: {}</li>\n", Escaped(system), Escaped(reason)));
    }
    html.push_str("</ul>\n");
    html
}
