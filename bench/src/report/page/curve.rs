//! Cells that are points of curves: a plot for each figure, and its numbers.

use crate::figure::{Better, Figure, Spread};

use super::super::model::{CellReport, Point, Report, SystemInfo};
use super::super::plot::{self, Curve, Mark, Plot};
use super::super::rank;
use super::super::text::{self, Escaped};
use super::figure_number;

/// Cells of one curve, by their places.
pub(super) struct Group<'a> {
    name: &'a str,
    axis: &'a str,
    places: Vec<f64>,
    cells: Vec<&'a CellReport>,
}

/// The curves of a report: groups of two places at least. Of two cells in one place, the later one counts.
pub(super) fn groups(report: &Report) -> Vec<Group<'_>> {
    let points = || report.cells.iter().filter_map(|cell| Some((cell, cell.point.as_ref()?)));
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (_, Point { group, axis, .. }) in points() {
        if groups.iter().any(|known| known.name == group) {
            continue;
        }
        let of_group = points().filter(|(_, point)| point.group == *group && point.at.is_finite());
        let mut cells: Vec<(f64, &CellReport)> = of_group.map(|(cell, point)| (point.at, cell)).collect();
        cells.reverse();
        cells.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        cells.dedup_by(|(later, _), (earlier, _)| later == earlier);
        let (places, cells) = cells.into_iter().unzip();
        groups.push(Group { name: group, axis, places, cells });
    }
    groups.retain(|group| group.places.len() > 1);
    groups
}

/// The section of all curves, or nothing.
pub(super) fn section(report: &Report, groups: &[Group<'_>]) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<section id=\"curves\">\n<h2>Curves</h2>\n<p>Lines join the medians; a band reaches from the smallest to the largest round. \
         A hollow point is from a cell that was too noisy. A line is parted where a system was not measured.</p>\n",
    );
    for group in groups {
        html.push_str(&one(report, group));
    }
    html.push_str("</section>\n");
    html
}

fn one(report: &Report, group: &Group<'_>) -> String {
    let systems: Vec<(&SystemInfo, Mark)> = marks(report)
        .into_iter()
        .filter(|(system, _)| {
            group.cells.iter().any(|cell| cell.outcomes.iter().any(|outcome| outcome.system == system.name))
        })
        .collect();
    let mut html = format!("<article>\n<h3>{}</h3>\n", Escaped(group.name));
    html.push_str(&plot::legend(systems.iter().map(|(system, mark)| (system.name.as_str(), *mark))));
    html.push_str("<div class=\"plots\">\n");
    for figure in &report.figures {
        let mut curves: Vec<Curve<'_>> = systems
            .iter()
            .map(|(system, mark)| Curve {
                name: &system.name,
                mark: *mark,
                points: points(group, figure, &system.name),
            })
            .collect();
        curves.retain(|curve| curve.points.iter().flatten().count() > 0);
        // A figure that is nothing everywhere, as loss should be, stands in the tables; one place is no curve.
        let medians = || curves.iter().flat_map(|curve| curve.points.iter().flatten().map(|(spread, _)| spread.median));
        if medians().all(|median| median == 0.0) || curves.iter().all(|curve| curve.points.iter().flatten().count() < 2)
        {
            continue;
        }
        html.push_str(&panel(report, group, figure, curves));
    }
    html.push_str("</div>\n</article>\n");
    html
}

/// Each system and how it is marked, which is the same in all plots of the report.
fn marks(report: &Report) -> Vec<(&SystemInfo, Mark)> {
    let mut counts = [0, 0];
    let mark = |system: &SystemInfo| {
        let count = &mut counts[usize::from(system.ours)];
        *count += 1;
        Mark { ours: system.ours, number: *count - 1 }
    };
    let marks: Vec<Mark> = report.systems.iter().map(mark).collect();
    report.systems.iter().zip(marks).collect()
}

fn points(group: &Group<'_>, figure: &Figure, system: &str) -> Vec<Option<(Spread, bool)>> {
    let point = |cell: &&CellReport| {
        let outcome = cell.outcomes.iter().find(|outcome| outcome.system == system)?;
        Some((*outcome.figures.get(&figure.key)?, !cell.too_noisy))
    };
    group.cells.iter().map(point).collect()
}

/// A plot with its title and its numbers.
fn panel(report: &Report, group: &Group<'_>, figure: &Figure, mut curves: Vec<Curve<'_>>) -> String {
    let unit = if figure.unit.is_empty() { String::new() } else { format!(", {}", figure.unit) };
    let numbers = numbers(report, group, &curves);
    // Ours are drawn last, so that nothing covers them.
    curves.sort_by_key(|curve| curve.mark.ours);
    let plot = Plot { title: format!("{}{unit}", figure.title), axis: group.axis, places: &group.places, curves };
    let mut hints = match figure.better {
        Better::Lower => vec!["lower is better"],
        Better::Higher => vec!["higher is better"],
        Better::Neither => Vec::new(),
    };
    hints.extend(plot.is_logarithmic().then_some("logarithmic"));
    format!(
        "<figure>\n<figcaption><a href=\"#figure-{}\" title=\"{}\">{}</a>{} <small>{}</small></figcaption>\n{}{numbers}</figure>\n",
        figure_number(report, figure),
        Escaped(&figure.meaning),
        Escaped(&figure.title),
        Escaped(&unit),
        hints.join(", "),
        plot.svg(),
    )
}

fn numbers(report: &Report, group: &Group<'_>, curves: &[Curve<'_>]) -> String {
    let mut html = format!(
        "<details><summary>as numbers</summary><div class=\"scroll\"><table class=\"values\">\n<thead><tr><th scope=\"col\">{}</th>",
        Escaped(group.axis)
    );
    for place in &group.places {
        html.push_str(&format!("<th scope=\"col\">{}</th>", text::short(*place)));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for curve in curves {
        let class = if rank::is_ours(report, curve.name) { " class=\"ours\"" } else { "" };
        html.push_str(&format!("<tr{class}><th scope=\"row\">{}</th>", Escaped(curve.name)));
        for point in &curve.points {
            html.push_str(&match point {
                Some((spread, _)) => format!("<td>{}</td>", text::number(spread.median)),
                None => "<td class=\"none\">–</td>".into(),
            });
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div></details>\n");
    html
}
