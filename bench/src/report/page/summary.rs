//! Who is first in each cell, and by how much we lead or trail.

use std::collections::BTreeSet;

use super::super::model::{CellReport, Report, SystemInfo};
use super::super::rank::{self, Standing};
use super::super::text::{self, Escaped};
use super::headline_link;

/// The section.
pub(super) fn section(report: &Report) -> String {
    let mut html = String::from("<section id=\"summary\">\n<h2>Summary</h2>\n");
    if report.cells.is_empty() {
        html.push_str("<p>No cell was measured.</p>\n</section>\n");
        return html;
    }
    html.push_str(&in_short(report));
    if report.cells.iter().any(|cell| rank::speaker(report, cell).is_some()) {
        html.push_str(&matrix(report));
    }
    html.push_str("</section>\n");
    html
}

/// Sentences: how often we are ahead, and all that we are behind of.
fn in_short(report: &Report) -> String {
    let mut standings = [0; 3];
    let mut items = Vec::new();
    for other in report.systems.iter().filter(|system| !system.ours) {
        let mut behind = Vec::new();
        for (number, cell) in report.cells.iter().enumerate().filter(|(_, cell)| !cell.too_noisy) {
            let ratio =
                rank::speaker(report, cell).and_then(|speaker| rank::versus(report, cell, speaker, &other.name));
            let Some(ratio) = ratio else { continue };
            let standing = Standing::of(&ratio);
            standings[standing as usize] += 1;
            if standing == Standing::Behind {
                let (name, ratio) = (Escaped(&cell.name), text::ratio(ratio.median));
                behind.push(format!("<a href=\"#cell-{number}\">{name}</a> ({ratio}×)"));
            }
        }
        if !behind.is_empty() {
            items.push(format!("It is behind <b>{}</b> in {}.", Escaped(&other.name), text::list(&behind)));
        }
    }
    let [ahead, even, behind] = standings;
    let all = ahead + even + behind;
    if all > 0 {
        let speakers: Vec<String> =
            speakers(report).iter().map(|speaker| format!("<b>{}</b>", Escaped(speaker))).collect();
        items.insert(
            0,
            format!(
                "{} was compared with others <b>{}</b>, each in one cell, which is <a href=\"#reading\">one kind of load</a>. It is ahead \
                 in every round in <b>{ahead}</b> of these comparisons, behind in every round in <b>{behind}</b>, and not clearly \
                 apart in <b>{even}</b>.",
                text::list(&speakers),
                text::plural(all, "time", "times"),
            ),
        );
    }
    let noisy = report.cells.iter().filter(|cell| cell.too_noisy).count();
    if noisy > 0 {
        let cells = text::plural(noisy, "cell was", "cells were");
        items.push(format!(
            "<b>{cells} too noisy</b> and left out here: over half of the rounds were rejected, so the figures must not be relied on."
        ));
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    if items.is_empty() { items } else { format!("<ul class=\"short\">\n{items}</ul>\n") }
}

/// Who speaks for us in some cell.
fn speakers(report: &Report) -> BTreeSet<&str> {
    report.cells.iter().filter_map(|cell| rank::speaker(report, cell)).collect()
}

/// A row for each cell, a column for each system.
fn matrix(report: &Report) -> String {
    let speakers = speakers(report);
    // Who speaks in all cells needs no column of its own.
    let silent = |system: &&SystemInfo| !(speakers.len() == 1 && speakers.contains(system.name.as_str()));
    let others: Vec<&SystemInfo> = report.systems.iter().filter(silent).collect();
    let speakers: Vec<String> = speakers.iter().map(|speaker| format!("<b>{}</b>", Escaped(speaker))).collect();
    let mut html = format!(
        "<p>{} beside each other system: how many times as good it is, by {}. Medians of the ratios within a \
         round:</p>\n\
         <ul class=\"key\"><li class=\"ahead\">ahead in every round</li><li class=\"even\">not clearly apart</li>\
         <li class=\"behind\">behind in every round</li></ul>\n\
         <div class=\"scroll\"><table class=\"matrix\">\n<thead><tr><th scope=\"col\">Cell</th><th scope=\"col\">First</th>",
        text::list(&speakers),
        headline_link(report),
    );
    for other in &others {
        html.push_str(&format!("<th scope=\"col\" class=\"up\"><span>{}</span></th>", Escaped(&other.name)));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (number, cell) in report.cells.iter().enumerate() {
        html.push_str(&row(report, number, cell, &others));
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

fn row(report: &Report, number: usize, cell: &CellReport, others: &[&SystemInfo]) -> String {
    let ranked = rank::ranked(report, cell);
    let first = ranked.first().map_or("", |outcome| outcome.system.as_str());
    let mut html = format!(
        "<tr{}><th scope=\"row\"><a href=\"#cell-{number}\">{}</a>{}<small>{}</small></th><td class=\"first{}\">{}</td>",
        if cell.too_noisy { " class=\"noisy\"" } else { "" },
        Escaped(&cell.name),
        if cell.too_noisy { " <em class=\"note\">too noisy</em>" } else { "" },
        Escaped(&cell.about),
        if rank::is_ours(report, first) { " ours" } else { "" },
        Escaped(first),
    );
    let speaker = rank::speaker(report, cell);
    for other in others {
        let named = |(system, _): &&(String, String)| *system == other.name;
        let ratio = speaker.filter(|speaker| *speaker != other.name);
        let ratio = ratio.and_then(|speaker| rank::versus(report, cell, speaker, &other.name));
        html.push_str(&match ratio {
            Some(ratio) => {
                let class = match Standing::of(&ratio) {
                    Standing::Ahead => "ahead",
                    Standing::Even => "even",
                    Standing::Behind => "behind",
                };
                format!(
                    "<td class=\"{class}\" title=\"{} to {} in {}\">{}</td>",
                    text::ratio(ratio.min),
                    text::ratio(ratio.max),
                    text::plural(ratio.count, "round", "rounds"),
                    text::ratio(ratio.median),
                )
            }
            None if cell.failed.iter().any(|failed| named(&failed)) => "<td class=\"none\">failed</td>".into(),
            None if cell.unable.iter().any(|unable| named(&unable)) => "<td class=\"none\">unable</td>".into(),
            None => "<td class=\"none\">–</td>".into(),
        });
    }
    html.push_str("</tr>\n");
    html
}
