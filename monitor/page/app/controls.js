// What an operator can do. Each control says in words what will happen and asks before it acts; the answer of every process is shown.
// The token goes from the field to the monitor and nowhere else: it answers with a cookie that scripts cannot read.

import { ask, el, icon, post, say } from "./dom.js";
import * as format from "./format.js";
import { t } from "./words.js";

const whole = (name, value, min, max, more = {}) => ({ name, type: "number", value, min, max, step: 1, ...more });

/** The controls: fields, the request, and what is said before. `of`: what the fields hold. Pure. */
export const CONTROLS = [
  {
    key: "qps",
    path: "qps",
    icon: "qps",
    fields: [whole("qps", (app) => app.qps() ?? 5_000, 1, 10_000_000), whole("in_seconds", 3, 1, 60)],
    body: ({ qps, in_seconds }) => ({ qps, in_seconds }),
  },
  {
    key: "campaign",
    path: "campaigns",
    icon: "campaign",
    fields: [
      { name: "kind", type: "select", options: ["rain", "ticket", "coupon"], value: "rain" },
      { name: "title", type: "text", value: "", maxLength: 60, optional: true },
      whole("total", 10_000, 1, 100_000_000),
      whole("rate_per_second", 100, 1, 1_000_000, { when: "rain" }),
      whole("min_fen", 1, 1, 100_000_000, { when: "rain" }),
      whole("max_fen", 200, 1, 100_000_000, { when: "rain" }),
      whole("price_fen", 8_000, 0, 100_000_000, { when: "ticket coupon" }),
      whole("face_value_fen", 2_000, 1, 100_000_000, { when: "coupon" }),
      whole("per_user_limit", "", 1, 1_000_000, { optional: true }),
      whole("hold_seconds", 300, 1, 86_400, { when: "ticket coupon" }),
    ],
    body: ({ hold_seconds, price_fen, title, ...rest }) => ({
      ...rest,
      ...(title ? { title } : {}),
      ...(price_fen ? { price_fen, hold_ms: hold_seconds * 1_000 } : {}),
    }),
  },
  { key: "stop", path: "campaigns/stop", icon: "resolved", fields: [{ name: "id", type: "select", options: "campaigns" }], body: ({ id }) => ({ id: Number(id) }), danger: true },
  {
    key: "envelopes",
    path: "envelope-runs",
    icon: "envelopes",
    fields: [
      whole("count", 1_000, 1, 10_000_000),
      whole("rate_per_second", 100, 1, 100_000),
      whole("recipients", 10, 1, 500),
      whole("first_user", 1, 1, 2 ** 40),
      whole("users", 1_000, 1, 100_000_000),
      whole("min_total_fen", 100, 1, 100_000_000),
      whole("max_total_fen", 2_000, 1, 100_000_000),
      whole("lifetime_seconds", 60, 1, 86_400),
    ],
    body: (of) => of,
  },
  { key: "announce", path: "announcements", icon: "announcement", fields: [{ name: "text", type: "textarea", value: "", maxLength: 500 }], body: ({ text }) => ({ text }) },
  {
    key: "storm",
    path: "storm",
    icon: "storm",
    fields: [whole("percent", 10, 1, 100), whole("in_seconds", 3, 1, 60)],
    body: ({ percent, in_seconds }) => ({ share: `${percent}%`, in_seconds }),
    danger: true,
  },
  { key: "drain", path: "drain", icon: "drain", fields: [{ name: "server", type: "select", options: "servers" }], body: ({ server }) => ({ server }), danger: true },
];

/** Whether a field belongs to what is being made. Pure. */
export function applies(field, of) {
  return !field.when || field.when.split(" ").includes(of.kind);
}

/** What will happen, in one sentence. Pure but for the language. */
export function says(control, of, targets) {
  const key = control.key === "campaign" ? `control.campaign.${of.kind}.says` : `control.${control.key}.says`;
  const told = {};
  for (const [name, value] of Object.entries(of)) told[name] = typeof value !== "number" ? value : name.endsWith("_fen") ? format.yuan(value) : format.count(value);
  return t(key, { ...told, machines: format.count(targets.machines), servers: format.count(targets.servers) });
}

export class Controls {
  constructor(app, root, button, gate) {
    this.app = app;
    this.root = root;
    this.button = button;
    this.gate = gate;
    this.operator = null;
    this.targets = { servers: [], machines: [] };
    button.addEventListener("click", () => (this.operator ? this.signedIn() : this.login()));
    gate.querySelector("form").addEventListener("submit", (event) => this.enter(event));
  }

  /** Asks whether there is a session from before. */
  async whoAmI() {
    try {
      this.took(await ask("/api/v1/session"));
    } catch {
      this.took({ operator: null });
    }
  }

  took({ operator }) {
    this.operator = operator;
    this.build();
    if (operator) this.look();
  }

  async look() {
    try {
      const { servers = [], machines = [] } = await ask("/api/v1/controls");
      this.targets = { servers, machines };
      this.build();
    } catch {
      // Shown without numbers; the answer to an action says who took it.
    }
  }

  build() {
    say(this.button.querySelector("span"), this.operator ?? t("operator.login"));
    this.button.title = this.operator ? t("operator.as", { name: this.operator }) : t("operator.why");
    this.button.setAttribute("aria-label", this.operator ? t("operator.as", { name: this.operator }) : t("operator.login"));
    this.root.hidden = !this.operator;
    if (!this.operator) return this.root.replaceChildren();
    const buttons = CONTROLS.map((control) => el("button", { type: "button", class: control.danger ? "dangerous" : "", onclick: () => this.open(control) }, icon(control.icon), t(`control.${control.key}`)));
    this.root.replaceChildren(el("h2", {}, t("controls.label")), ...buttons);
    for (const [at, control] of CONTROLS.entries()) buttons[at].dataset.control = control.key;
  }

  // Logging in and out

  /** The whole page asks for a token: this monitor is not on loopback. */
  lock(then) {
    this.then = then;
    this.gate.hidden = false;
    document.getElementById("main").hidden = true;
    this.gate.querySelector("input").focus();
  }

  async enter(event) {
    event.preventDefault();
    const form = event.target;
    const problem = form.querySelector(".problem");
    const field = form.querySelector("input[name=token]");
    const token = field.value.trim();
    field.value = "";
    try {
      this.took(await post("/api/v1/session", { token }));
    } catch (error) {
      problem.hidden = false;
      return say(problem, t("operator.refused", { problem: error.message }));
    }
    problem.hidden = true;
    this.gate.hidden = true;
    document.getElementById("main").hidden = false;
    this.dialog?.close();
    this.then?.();
    this.then = null;
  }

  login() {
    const field = el("input", { type: "password", name: "token", autocomplete: "off", required: true });
    const form = el(
      "form",
      {},
      el("h2", {}, t("operator.title")),
      el("p", {}, t("operator.why")),
      el("label", {}, el("span", {}, t("operator.token")), field),
      el("p", { class: "hint" }, el("code", {}, "hongbao-server token --for admin NAME")),
      el("p", { class: "problem", role: "alert", hidden: true }),
      el("footer", {}, el("button", { type: "button", onclick: () => this.dialog.close() }, t("dialog.cancel")), el("button", { class: "primary" }, t("operator.enter"))),
    );
    form.addEventListener("submit", (event) => this.enter(event));
    this.show(form, t("operator.title"));
  }

  /** Who is logged in; leaving is a button of its own. */
  signedIn() {
    const close = () => this.dialog.close();
    const leave = el("button", { type: "button", class: "leave", onclick: () => (close(), this.leave()) }, t("operator.leave"));
    const title = t("operator.signed_in", { name: this.operator });
    this.show(el("div", {}, el("h2", {}, title), el("p", {}, t("operator.signed_in.why")), el("footer", {}, leave, el("button", { type: "button", class: "primary", onclick: close }, t("dialog.close")))), title);
  }

  /** Campaigns that can be stopped, by number: those of all servers. */
  async campaigns() {
    const { outcomes } = await ask("/api/v1/control/campaigns").catch(() => ({ outcomes: [] }));
    const all = outcomes.flatMap(({ ok, body }) => (ok && Array.isArray(body) ? body : []));
    const live = all.filter(({ state }) => state === "open" || state === "scheduled").sort((one, other) => other.id - one.id);
    const words = ({ id, kind, title, state, won, total }) => [id, `${id} · ${t(`field.kind.${kind}`)}${title ? ` “${title}”` : ""} · ${t(`campaign.${state}`, { won: format.count(won), total: format.count(total) })}`];
    return [...new Map(live.map(words))];
  }

  async leave() {
    try {
      await ask("/api/v1/session", { method: "DELETE", headers: { "content-type": "application/json" }, body: "{}" });
    } catch {
      // The session ends by itself; the page forgets it now.
    }
    this.took({ operator: null });
  }

  // Acting

  /** A dialog of some content; the browser keeps the focus in it and gives it back. */
  show(content, label) {
    this.dialog?.remove();
    const dialog = el("dialog", { class: "dialog", "aria-label": label }, content);
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    this.dialog = dialog;
    dialog.showModal();
    return dialog;
  }

  counts() {
    const of = (list) => list.filter((one) => one.control).length;
    return { servers: of(this.targets.servers), machines: of(this.targets.machines) };
  }

  async open(control, before = null) {
    if (control.key === "stop") this.targets.campaigns = await this.campaigns();
    const inputs = new Map();
    const rows = control.fields.map((field) => {
      const input = this.input(field, before?.[field.name]);
      inputs.set(field.name, input);
      const unit = field.name.endsWith("_fen") ? el("small", {}, "") : null;
      const row = el("label", { class: "field" }, el("span", {}, t(`field.${field.name}`), field.optional ? el("em", {}, t("field.optional")) : null), input, unit);
      return { field, row, unit };
    });
    const preview = el("p", { class: "says", "aria-live": "polite" });
    const read = () => {
      const of = {};
      for (const { field } of rows) {
        const { value } = inputs.get(field.name);
        if (field.type === "number" ? value !== "" : value !== "" || !field.optional) of[field.name] = field.type === "number" ? Number(value) : value;
      }
      for (const { field } of rows) if (!applies(field, of)) delete of[field.name];
      return of;
    };
    const form = el(
      "form",
      {},
      el("h2", {}, t(`control.${control.key}`)),
      el("div", { class: "fields" }, ...rows.map(({ row }) => row)),
      preview,
      el("footer", {}, el("button", { type: "button", onclick: () => this.dialog.close() }, t("dialog.cancel")), el("button", { class: "primary" }, t("dialog.continue"))),
    );
    const told = () => {
      const of = read();
      for (const { field, row, unit } of rows) {
        row.hidden = !applies(field, of);
        inputs.get(field.name).disabled = row.hidden;
        if (unit) say(unit, field.name in of ? format.yuan(of[field.name]) : "");
      }
      say(preview, form.checkValidity() ? says(control, of, this.counts()) : "");
    };
    form.addEventListener("input", told);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.sure(control, read());
    });
    told();
    this.show(form, t(`control.${control.key}`));
  }

  input(field, before) {
    const value = before ?? (typeof field.value === "function" ? field.value(this.app) : field.value) ?? "";
    if (field.type === "select") {
      const options = {
        servers: () => this.targets.servers.filter((one) => one.control).map(({ name }) => [name, name]),
        campaigns: () => (this.targets.campaigns.length ? this.targets.campaigns : [["", t("control.stop.none")]]),
      }[field.options] ?? (() => field.options.map((option) => [option, t(`field.kind.${option}`)]));
      return el("select", { required: true }, ...options().map(([option, words]) => el("option", { value: String(option), selected: String(option) === String(value) }, words)));
    }
    if (field.type === "textarea") return el("textarea", { rows: 3, maxLength: field.maxLength, required: true, value });
    const { type, min, max, step, maxLength, optional } = field;
    return el("input", { type, min, max, step, maxLength, required: !optional, value: String(value), inputMode: type === "number" ? "numeric" : null });
  }

  /** Says what will happen, and asks. */
  sure(control, of) {
    const act = el("button", { type: "button", class: control.danger ? "danger" : "primary" }, t(`control.${control.key}.do`));
    const back = el("button", { type: "button", onclick: () => this.open(control, of) }, t("dialog.back"));
    const content = el("div", {}, el("h2", {}, t("dialog.sure")), el("p", { class: "says strong" }, says(control, of, this.counts())), control.danger ? el("p", { class: "warning" }, t(`control.${control.key}.warning`)) : null, el("footer", {}, back, act));
    act.addEventListener("click", async () => {
      act.disabled = true;
      back.disabled = true;
      this.outcome(control, await this.act(control, of));
    });
    this.show(content, t("dialog.sure"));
    back.focus();
  }

  async act(control, of) {
    try {
      return { outcomes: (await post(`/api/v1/control/${control.path}`, control.body(of))).outcomes ?? [] };
    } catch (error) {
      if (error.status === 401) this.took({ operator: null });
      return error.body?.outcomes ? { outcomes: error.body.outcomes } : { outcomes: [], problem: error.message };
    }
  }

  /** What came of it, process by process. */
  outcome(control, { outcomes, problem }) {
    const good = outcomes.length > 0 && outcomes.every((one) => one.ok);
    const rows = outcomes.map((one) => {
      const words = one.ok ? t("outcome.done") : (one.body?.error?.message ?? one.error ?? t("outcome.failed", { status: one.status }));
      const row = el("tr", {}, el("th", { scope: "row" }, one.target), el("td", {}, el("span", { class: "pill", "data-state": one.ok ? "ok" : "bad" }, el("i"), el("b", {}, t(one.ok ? "outcome.ok" : "outcome.bad")))), el("td", {}, words));
      return row;
    });
    const head = problem ?? t(good ? "outcome.all" : outcomes.length ? "outcome.some" : "outcome.nobody");
    const close = el("button", { type: "button", class: "primary", onclick: () => this.dialog.close() }, t("dialog.close"));
    const content = el("div", { class: "outcome" }, el("h2", {}, t(`control.${control.key}`)), el("p", { class: good ? "good" : "problem", role: "status" }, head), rows.length ? el("div", { class: "scroll-x" }, el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("outcome.target")), el("th", { scope: "col" }, t("outcome.state")), el("th", { scope: "col" }, t("outcome.says")))), el("tbody", {}, ...rows))) : null, el("footer", {}, close));
    this.show(content, t(`control.${control.key}`));
    close.focus();
    this.look();
  }
}
