//! The table and the JSON.

use std::fs;
use std::process::Command;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::harness::{Measured, Plan, Results};
use crate::job::Sample;
use crate::rows::{Metric, Target};
use crate::stats::{median, spread};

/// The load's core is full from here on (load and backend share it).
const FULL: f64 = 0.95;

/// What one metric came to.
struct Line<'a> {
    row: usize,
    metric: &'a Metric,
    /// One list a gateway: the round and its value.
    rounds: Vec<Vec<(usize, f64)>>,
    samples: Vec<Vec<f64>>,
    /// Our median, and the gateway that we are.
    ours: Option<(usize, f64)>,
    /// The least median of the others and its gateway.
    best_peer: Option<(usize, f64)>,
}

impl<'a> Line<'a> {
    fn all(plan: &'a Plan, results: &Results) -> Vec<Self> {
        let rows = plan.rows.iter().enumerate();
        rows.flat_map(|(row, r)| r.metrics.iter().map(move |metric| (row, metric)))
            .map(|(row, metric)| Self::new(plan, results, row, metric))
            .collect()
    }

    fn new(plan: &Plan, results: &Results, row: usize, metric: &'a Metric) -> Self {
        let of = |gateway| {
            samples(results, row, gateway)
                .map(|m| (m.round, (metric.value)(&m.sample)))
                .filter(|(_, value)| value.is_finite())
                .collect()
        };
        let rounds: Vec<Vec<(usize, f64)>> = (0..plan.gateways.len()).map(of).collect();
        let samples: Vec<Vec<f64>> =
            rounds.iter().map(|rounds| rounds.iter().map(|(_, value)| *value).collect()).collect();
        let medians = || samples.iter().map(|samples| median(samples)).enumerate();
        let is_ours = |index: &usize| plan.gateways[*index].gateway.ours;
        let ours =
            medians().find(|(index, _)| is_ours(index)).and_then(|(index, median)| Some((index, median?)));
        // A gateway that is no peer is compared with only where there is no peer.
        let is_reference = |index: &usize| plan.gateways[*index].gateway.optional;
        let best = |references: bool| {
            medians()
                .filter(|(index, _)| !is_ours(index) && is_reference(index) == references)
                .filter_map(|(index, median)| Some((index, median?)))
                .min_by(|(_, a), (_, b)| a.total_cmp(b))
        };
        let best_peer = best(false).or_else(|| best(true));
        Self { row, metric, rounds, samples, ours, best_peer }
    }

    /// The median of the rounds' ratios: within a round gateways take turns, so the pace of the machine
    /// is the same for both.
    fn ratio(&self) -> Option<f64> {
        let [ours, peer] = [self.ours?.0, self.best_peer?.0].map(|index| &self.rounds[index]);
        let ratios: Vec<f64> = ours
            .iter()
            .filter_map(|(round, value)| Some(value / peer.iter().find(|(other, _)| other == round)?.1))
            .collect();
        median(&ratios)
    }

    fn met(&self) -> Option<bool> {
        is_met(self.metric.target, self.ours.map(|(_, median)| median), self.ratio())
    }

    fn target(&self) -> String {
        match self.metric.target {
            Target::Ratio(most) => format!("≤ {most:.2} ×"),
            Target::Most(most) => format!("≤ {most}"),
            Target::None => String::new(),
        }
    }

    fn cell(&self, gateway: usize) -> String {
        let (samples, digits) = (&self.samples[gateway], self.metric.digits);
        match (median(samples), spread(samples)) {
            (Some(median), Some((least, greatest))) => {
                format!("{median:.digits$}\n{least:.digits$}–{greatest:.digits$}")
            }
            _ => "n/a".to_owned(),
        }
    }
}

fn is_met(target: Target, ours: Option<f64>, ratio: Option<f64>) -> Option<bool> {
    match target {
        Target::Ratio(most) => Some(ratio? <= most),
        Target::Most(most) => Some(ours? <= most),
        Target::None => None,
    }
}

fn samples(results: &Results, row: usize, gateway: usize) -> impl Iterator<Item = &Measured> {
    results.measured.iter().filter(move |m| m.row == row && m.gateway == gateway)
}

/// The comparison as text: medians with their spread; then what the cores were doing.
pub(crate) fn text(plan: &Plan, results: &Results) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let names = || plan.gateways.iter().map(|installed| installed.gateway.name.clone());
    let mut header = vec!["row".to_owned(), "unit".to_owned()];
    header.extend(names());
    header.extend(["ratio", "target", "met"].map(str::to_owned));
    let columns = header.len();
    table.set_header(header);
    for line in Line::all(plan, results) {
        let mut cells = vec![line.metric.title.to_owned(), line.metric.unit.to_owned()];
        cells.extend((0..plan.gateways.len()).map(|gateway| line.cell(gateway)));
        cells.push(line.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")));
        cells.push(line.target());
        cells.push(line.met().map_or("", |met| if met { "yes" } else { "no" }).to_owned());
        table.add_row(cells);
    }
    for index in 2..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n{table}\n\n{}", heading(plan), cores(plan, results))
}

/// Medians of the shares of a core that gateway, load and backend used.
fn cores(plan: &Plan, results: &Results) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let mut header = vec!["CPU %: gateway / load and backend".to_owned()];
    header.extend(plan.gateways.iter().map(|installed| installed.gateway.name.clone()));
    table.set_header(header);
    for (index, row) in plan.rows.iter().enumerate() {
        let mut cells = vec![row.name.to_owned()];
        for gateway in 0..plan.gateways.len() {
            let share = |part: fn(&Sample) -> f64| {
                let shares: Vec<_> =
                    samples(results, index, gateway).map(|m| part(&m.sample) / m.sample.seconds).collect();
                median(&shares).filter(|share| share.is_finite())
            };
            let shares = [share(|s| s.gateway_cpu), share(|s| s.load_cpu), share(|s| s.others_cpu)];
            cells.push(match shares {
                [Some(gateway), Some(load), Some(others)] => {
                    let full = if load >= FULL { "!" } else { "" };
                    let [gateway, load, others] = [gateway, load, others].map(|share| share * 100.0);
                    format!("{gateway:.0} / {load:.0}{full}\nothers {others:.0}")
                }
                _ => "n/a".to_owned(),
            });
        }
        table.add_row(cells);
    }
    format!("{table}\n")
}

fn heading(plan: &Plan) -> String {
    let mut lines = vec![format!(
        "{}, Linux {}, commit {}; {} rounds of {} s; medians over least–greatest",
        processor(),
        kernel(),
        commit(),
        plan.rounds,
        plan.seconds
    )];
    lines.extend(plan.gateways.iter().map(|i| format!("{}: {}", i.gateway.name, i.version)));
    lines.join("\n") + "\n"
}

/// Everything, every sample included.
pub(crate) fn json(plan: &Plan, results: &Results) -> Value {
    let name = |index: usize| plan.gateways[index].gateway.name.as_str();
    let lines = Line::all(plan, results).into_iter().map(|line| {
        let by_gateway = |value: &dyn Fn(usize) -> Value| -> Value {
            (0..plan.gateways.len()).map(|index| (name(index).to_owned(), value(index))).collect()
        };
        let target = match line.metric.target {
            Target::Ratio(most) => json!({ "ratio": most }),
            Target::Most(most) => json!({ "most": most }),
            Target::None => Value::Null,
        };
        json!({
            "row": plan.rows[line.row].name,
            "title": line.metric.title,
            "unit": line.metric.unit,
            "samples": by_gateway(&|index| json!(line.samples[index])),
            "median": by_gateway(&|index| json!(median(&line.samples[index]))),
            "spread": by_gateway(&|index| json!(spread(&line.samples[index]))),
            "best_peer": line.best_peer.map(|(index, _)| name(index)),
            "ratio": line.ratio(),
            "target": target,
            "met": line.met(),
        })
    });
    let raw = results.measured.iter().map(|m| {
        json!({
            "row": plan.rows[m.row].name,
            "gateway": name(m.gateway),
            "round": m.round + 1,
            "sample": m.sample,
            "slices": m.slices,
        })
    });
    let versions: Value = plan.gateways.iter().map(|i| (i.gateway.name.clone(), json!(i.version))).collect();
    json!({
        "processor": processor(),
        "kernel": kernel(),
        "commit": commit(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "gateways": versions,
        "lines": lines.collect::<Vec<_>>(),
        "samples": raw.collect::<Vec<_>>(),
        "failures": results.failures,
    })
}

pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(": ")).map_or("unknown processor", |(_, model)| model);
    model.to_owned()
}

pub(crate) fn kernel() -> String {
    let read = |setting| fs::read_to_string(setting).unwrap_or_default().trim().to_owned();
    let congestion_control = read("/proc/sys/net/ipv4/tcp_congestion_control");
    format!("{} with {congestion_control}", read("/proc/sys/kernel/osrelease"))
}

pub(crate) fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = git.map(|output| output.stdout).unwrap_or_default();
    match String::from_utf8_lossy(&text).trim() {
        "" => "unknown".to_owned(),
        commit => commit.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_met_up_to_and_including() {
        assert_eq!(is_met(Target::Ratio(0.8), Some(8.0), Some(0.8)), Some(true));
        assert_eq!(is_met(Target::Ratio(0.8), Some(8.1), Some(0.81)), Some(false));
        assert_eq!(is_met(Target::Ratio(0.8), Some(8.0), None), None);
        assert_eq!(is_met(Target::Most(45.0), Some(45.1), None), Some(false));
        assert_eq!(is_met(Target::None, Some(1.0), Some(1.0)), None);
    }
}
