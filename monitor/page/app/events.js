// What happened, as it is told: an order and its echo are one event, and the sentences that servers, machines and the monitor write
// in English are said in the language of the page. Pure but for the language.

import { language } from "./words.js";

/** An order and its echo from a process lie no farther apart. */
const SAME_MS = 3_000;

/** An operator's order and what processes say of the same are one event: the order, with who told of it. */
export function folded(marks) {
  const orders = marks.filter((mark) => mark.source === "operator").map((mark) => ({ ...mark, told: null }));
  let next = 0;
  return marks.flatMap((mark) => {
    if (mark.source === "operator") return [orders[next++]];
    const order = orders.find((one) => !one.told && one.kind === mark.kind && Math.abs(one.at_ms - mark.at_ms) <= SAME_MS);
    if (order) order.told = mark.source;
    return order ? [] : [mark];
  });
}

/** Sentences and their translation; a part in parentheses stands for $1, $2, … */
const SENTENCES = [
  [/^(\d+) requests a second/, "每秒 $1 个请求"],
  [/^no more requests/, "不再发送请求"],
  [/^([\d.]+ ?%) of the users are cut/, "断开 $1 的用户"],
  [/^storm of ([\d.]+ ?%)/, "断线演练：$1"],
  [/^campaign (\d+): rain of (\d+) prizes, (\d+) a second/, "活动 $1：摇红包 $2 个，每秒 $3 个"],
  [/^campaign (\d+): sale of (\d+) units at (\d+) fen/, "活动 $1：发售 $2 件，每件 $3 分"],
  [/^campaign (\d+) is sold out/, "活动 $1 已售罄"],
  [/^campaign (\d+) has ended/, "活动 $1 已结束"],
  [/^campaign (\d+) stopped/, "活动 $1 已停止"],
  [/^rain(.*) begins of (\d+)/, "摇红包$1开始，共 $2 个"],
  [/^ticket(.*) begins of (\d+)/, "售票$1开始，共 $2 张"],
  [/^coupon(.*) begins of (\d+)/, "优惠券$1开始，共 $2 张"],
  [/^envelope run (\d+) begins: (\d+) envelopes, (\d+) a second, to (\d+) users each/, "第 $1 批红包开始：$2 个，每秒 $3 个，每个发给 $4 人"],
  [/^envelope run (\d+) is over: (\d+) envelopes sent, (\d+) shares opened, (\d+) fen given back/, "第 $1 批红包结束：发出 $2 个，拆开 $3 份，退回 $4 分"],
  [/^run of (?:(\d+) )?group envelopes begins/, "开始发群红包 $1"],
  [/^announcement: /, "广播："],
  [/^the server stops in order; (\d+) users are on-line/, "服务器正常停止，$1 位用户在线"],
  [/^server (\S+) drains/, "服务器 $1 下线"],
  [/^the books of (\w+) have not agreed for more than (\d+) s: residual (-?\d+), (-?\d+) fen/, "$1 的两账超过 $2 秒不符：差 $3 笔，$4 分"],
  [/^the books of (\w+) agree again/, "$1 的两账重新相符"],
  [/^(\d+) of (\d+) planned requests were sent/, "计划 $2 个请求，只发出 $1 个"],
  [/^the fleet sends as planned again/, "机群恢复按计划发送"],
  [/^(\d+) of (\d+) requests were answered Overloaded/, "$2 个请求中 $1 个被答过载"],
  [/^fewer requests are answered Overloaded again/, "过载回答已减少"],
  [/^(\S+) has vanished without its leave/, "$1 未告退就消失了"],
  [/^(\S+) reports again, or has ended/, "$1 恢复上报，或已结束"],
  [/^the clock of (\S+) may be off by (\d+) ms/, "$1 的时钟可能偏差 $2 毫秒"],
  [/^the clock of (\S+) is good again/, "$1 的时钟恢复正常"],
  [/^(\S+) has (\d+) of (\d+) descriptors in use/, "$1 已用描述符 $2 / $3"],
  [/^(\S+) has descriptors to spare again/, "$1 的描述符重新充裕"],
  [/^the recording works again/, "录制恢复正常"],
  [/ \((\d+) of (\d+) took it\)/, "（$2 个中 $1 个接受）"],
  [/, by (\S+)$/, "，操作员 $1"],
  [/^(\d+) machines?$/, "$1 台机器"],
  [/^(\d+) servers?$/, "$1 台服务器"],
  [/^operator\b/, "操作员"],
  [/^monitor$/, "监控台"],
];

/** A sentence of an event in the page's language; one that is not known stays as it is. */
export function eventText(text) {
  if (language() !== "zh") return text;
  return SENTENCES.reduce((told, [words, translation]) => told.replace(words, (_, ...parts) => translation.replace(/\$(\d)/g, (__, at) => parts[at - 1] ?? "")), text);
}
