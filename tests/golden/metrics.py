"""Writes metrics.json: random and adversarial inputs with what the reference implementations answer.

scikit-learn, scipy, seqeval, sacrebleu, rouge-score and NLTK answer for themselves. SQuAD's and CMRC's scores have no
package: they are written down here once more, from the papers, in the plainest way.

    pip install numpy==2.4.6 scikit-learn==1.9.1 scipy==1.17.1 seqeval==1.2.2 sacrebleu==2.6.0 regex==2026.11.15 \\
        rouge-score==0.1.2 nltk==3.10.4
    python metrics.py
"""

import json
import random
import re
import string
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from nltk.tokenize.destructive import NLTKWordTokenizer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from scipy import stats
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities
from sklearn import metrics as sk

warnings.filterwarnings("ignore")
RNG = random.Random(20260)
PLAIN = """the The a An an cat sat on mat there is committee approved new budget Theater another
    banana café naïve Straße Žižek it was said that he who dares wins today tomorrow""".split()
CHINESE = list("今天气很好我们去北京大学学习人工智能的方法和模型，。！？《》“”、") + ["𠀀", "豈", "〇", "ｆｕｌｌ"]
ODD = [
    *["1,234.56", "3.", ".5", "10-20", "1990", "3,4,5", "$3.50", "50%", "2²", "½", "٣", "Ⅷ", "e.g.", "U.S.", "No.7"],
    *["&quot;", "&amp;lt;", "&lt;b&gt;", "&", "<skipped>", "-\n", "\n", "\t", "\u00a0", "\u3000", "\x1c", "\u200b", "\r"],
    *["...", "…", "..", ",,", ",", ".", "--", "—", "–", "-", "'", '"', "''", "``", "“", "”", "«", "»", "‘", "’", "„"],
    *["(hi)", "?!", "!", ";", ":", "#tag", "@me", "a/b", "x*y", "[1]", "{z}", "<c>", "~", "^", "_", "a_b", "|", "\\"],
    *["don't", "cannot", "can't", "gimme", "wanna", "'tis", "d'ye", "more'n", "we'll", "I'm", "'em", "dogs'", "o'clock"],
    *["🙂", "👩\u200d👩", "🇩🇪", "€", "£5", "a€", "→", "∑", "e\u0301", "a\u0301", "İ", "ΑΣ", "ΣΑΣ.", "ǅ", "ß", "ﬁ", "x" * 40],
]


def text(kind=None, longest=14):
    kind = kind or RNG.choice(["plain", "odd", "chinese", "all", "all"])
    pool = {"plain": PLAIN, "odd": PLAIN + ODD, "chinese": CHINESE, "all": PLAIN + ODD + CHINESE}[kind]
    parts = [RNG.choice(pool) for _ in range(RNG.choice([0, 1, 2, RNG.randint(3, longest), RNG.randint(3, longest)]))]
    glue = "" if kind == "chinese" else None
    return "".join(part + (RNG.choice([" ", " ", " ", "", "  "]) if glue is None else glue) for part in parts)


def perturbed(original):
    """A text that shares much with another."""
    units = re.findall(r"\w+|\W", original)
    for _ in range(RNG.choice([0, 1, 1, 2, 4])):
        at = RNG.randrange(len(units) + 1)
        match RNG.randrange(4):
            case 0:
                units.insert(at, RNG.choice([" ", ""]) + RNG.choice(PLAIN + ODD))
            case 1:
                del units[at : at + RNG.choice([1, 3])]
            case 2:
                units[at:at] = units[-3:]
            case 3:
                units = [unit.swapcase() if RNG.random() < 0.3 else unit for unit in units]
    return "".join(units)


def rows(values):
    return [float(values[0]), float(values[1]), float(values[2])]


def prf(truth, predicted, **more):
    return rows(sk.precision_recall_fscore_support(truth, predicted, zero_division=0, **more))


def classification():
    cases = []
    for index in range(40):
        classes, size = RNG.randint(2, 7), RNG.choice([1, 2, 5, 20, 60])
        some = RNG.sample(range(classes), RNG.randint(1, classes))
        truth = [RNG.choice(some) for _ in range(size)]
        match index % 4:
            case 0:
                predicted = [RNG.randrange(classes) for _ in truth]
            case 1:
                predicted = [y if RNG.random() < 0.8 else RNG.choice(some) for y in truth]
            case 2:
                predicted = [some[0]] * size
            case 3:
                predicted = list(truth)
        case = dict(classes=classes, truth=truth, predicted=predicted)
        case["accuracy"] = sk.accuracy_score(truth, predicted)
        case["matrix"] = sk.confusion_matrix(truth, predicted, labels=range(classes)).tolist()
        case["matthews"] = sk.matthews_corrcoef(truth, predicted)
        seen = sorted(set(truth) | set(predicted))
        for name, labels in (("seen", seen), ("all", list(range(classes)))):
            p, r, f, s = sk.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
            case[name] = dict(
                classes=[[c, *map(float, row)] for c, *row in zip(labels, p, r, f, s)],
                **{a: prf(truth, predicted, labels=labels, average=a) for a in ("micro", "macro", "weighted")},
            )
        if set(seen) <= {0, 1}:
            case["binary"] = prf(truth, predicted, average="binary")
        cases.append(case)
    return cases


def multilabel():
    cases = []
    for index in range(16):
        labels, size, rate = RNG.randint(2, 6), RNG.choice([1, 3, 20]), RNG.choice([0.0, 0.2, 0.5, 1.0])
        truth = [[RNG.random() < rate for _ in range(labels)] for _ in range(size)]
        predicted = [[bit != (RNG.random() < 0.3) for bit in row] if index % 4 else row for row in truth]
        a, b = np.array(truth, dtype=int), np.array(predicted, dtype=int)
        p, r, f, s = sk.precision_recall_fscore_support(a, b, zero_division=0)
        averages = {name: prf(a, b, average=name) for name in ("micro", "macro", "weighted", "samples")}
        per = [list(map(float, row)) for row in zip(p, r, f, s)]
        subset = sk.accuracy_score(a, b)
        cases.append(dict(truth=truth, predicted=predicted, labels=per, subset=subset, **averages))
    return cases


def top_k():
    cases = []
    for index in range(12):
        classes, size = RNG.randint(3, 7), RNG.choice([1, 4, 15])
        # Halves are exact in f32, and often equal.
        scores = [[RNG.randint(-3, 3) / 2 if index else 0.0 for _ in range(classes)] for _ in range(size)]
        truth = [RNG.randrange(classes) for _ in range(size)]
        ks = range(1, classes + 2)
        expected = [sk.top_k_accuracy_score(truth, scores, k=k, labels=range(classes)) for k in ks]
        cases.append(dict(classes=classes, truth=truth, scores=scores, expected=expected))
    return cases


def regression():
    cases = []
    for index in range(24):
        size = RNG.choice([2, 3, 10, 40])
        scale, shift = RNG.choice([(1, 0), (1e-9, 0), (1e9, 0), (1, 1e6), (1e-180, 0)])
        draw = (lambda: RNG.randint(0, 3)) if index % 2 else (lambda: RNG.gauss(0, 1))
        x = [float(draw()) * scale + shift for _ in range(size)]
        y = [0.5 * value + float(draw()) * scale * 0.7 for value in x]
        if len(set(x)) == 1 or len(set(y)) == 1:
            continue
        case = dict(x=x, y=y, pearson=stats.pearsonr(x, y).statistic, spearman=stats.spearmanr(x, y).statistic)
        case |= dict(mse=sk.mean_squared_error(x, y), mae=sk.mean_absolute_error(x, y), ranks=list(stats.rankdata(x)))
        cases.append({name: np.asarray(value).tolist() for name, value in case.items()})
    return cases


def entities():
    schemes = dict(lenient=("BIES", None), iob2=("BI", IOB2), iobes=("BIES", IOBES), bilou=("BILU", BILOU))
    cases = []
    for name, (prefixes, scheme) in schemes.items():
        for index in range(12):
            kinds = RNG.choice([["-PER"], ["-PER", "-LOC", "-人名"], ["-PER", "", "-", "-A-B", "--X-", "-Z"]])

            def tag():
                return "O" if RNG.random() < 0.3 else RNG.choice(prefixes) + RNG.choice(kinds)

            truth = [[tag() for _ in range(RNG.choice([0, 1, 4, 12]))] for _ in range(RNG.choice([2, 5]))]
            predicted = [[t if RNG.random() < 0.7 else tag() for t in s] if index % 4 else list(s) for s in truth]
            if scheme:
                found = [[(e.tag, e.start, e.end) for e in s] for s in Entities(truth, scheme).entities]
                others = Entities(predicted, scheme).entities
            else:
                found = [[(kind, start, end + 1) for kind, start, end in get_entities(s)] for s in truth]
                others = [get_entities(s) for s in predicted]
            case = dict(scheme=name, truth=truth, predicted=predicted, entities=found)
            if any(found) or any(others):
                mode = dict(mode="strict", scheme=scheme) if scheme else {}
                report = classification_report(truth, predicted, output_dict=True, zero_division=0, **mode)
                rows = {k: [float(v) for v in row.values()] for k, row in report.items()}
                case["averages"] = {k: rows.pop(f"{k} avg") for k in ("micro", "macro", "weighted")}
                case["kinds"] = rows
            flat = [(a, b) for x, y in zip(truth, predicted) for a, b in zip(x, y)]
            if flat:
                case["accuracy"] = sum(a == b for a, b in flat) / len(flat)
            cases.append(case)
    return cases


def normalized(answer):
    answer = "".join(c for c in answer.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(?:the|an|a)\b", " ", answer).split())


def squad_f1(gold, predicted, version):
    gold, predicted = normalized(gold).split(), normalized(predicted).split()
    if version == 2 and (not gold or not predicted):
        return float(gold == predicted)
    same = (Counter(gold) & Counter(predicted)).total()
    if not same:
        return 0.0
    precision, recall = same / len(predicted), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def squad_best(questions, key):
    """The best threshold, found by trying every one: below all, then after each question."""
    order = sorted(questions, key=lambda q: q["score"])
    best = None
    for taken in range(len(order) + 1):
        said = sum(q[key] if q["answers"] else not q["prediction"] for q in order[:taken])
        total = said + sum(not q["answers"] for q in order[taken:])
        threshold = order[taken - 1]["score"] if taken else 0.0
        if best is None or total > best[0] + 1e-12:
            best = (total, threshold)
    return [100 * best[0] / len(order), best[1]]


def squad():
    cases = []
    for index in range(16):
        version, questions = 1 + index % 2, []
        for _ in range(RNG.choice([1, 6, 20])):
            answers = [text("all" if index % 4 < 2 else "plain", 5) for _ in range(RNG.randint(2 - version, 3))]
            prediction = perturbed(RNG.choice(answers)) if answers and RNG.random() < 0.7 else text(longest=4)
            if version == 2 and RNG.random() < 0.3:
                prediction = ""
            golds = answers if version == 1 else [a for a in answers if normalized(a)] or [""]
            exact = float(max(normalized(gold) == normalized(prediction) for gold in golds))
            f1 = max(squad_f1(gold, prediction, version) for gold in golds)
            score = RNG.randint(0, 20) / 20
            questions.append(dict(answers=answers, prediction=prediction, score=score, exact=exact, f1=f1))
        case = dict(version=version, questions=questions)

        def means(chosen, above=2.0):
            silent = [q["score"] > above for q in chosen]
            values = [
                [float(not q["answers"]) if s else q[k] for q, s in zip(chosen, silent)] for k in ("exact", "f1")
            ]
            return [100 * sum(v) / len(v) for v in values] + [len(chosen)] if chosen else None

        groups = [questions, [q for q in questions if q["answers"]], [q for q in questions if not q["answers"]]]
        case["report"] = [means(group) for group in groups]
        case["above"] = [means(group, 0.5) for group in groups]
        case["best"] = [squad_best(questions, "exact"), squad_best(questions, "f1")]
        cases.append(case)
    texts = [text(longest=8) for _ in range(60)] + ODD + ["", "a", "the a an", "a\u0301 the", "a€the", "a_b the_ _an"]
    return dict(cases=cases, normalized=[[t, normalized(t)] for t in texts])


PUNCTUATION = set("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")


def cmrc_plain(answer):
    return "".join(c for c in answer.lower().strip() if c not in PUNCTUATION)


def cmrc_segments(answer):
    words, found = NLTKWordTokenizer(), []
    for run in re.split("([\u4e00-\u9fa5])", cmrc_plain(answer)):
        found += [run] if re.fullmatch("[\u4e00-\u9fa5]", run) else words.tokenize(run)
    return found


def cmrc_f1(answer, prediction):
    """The longest run that both hold, by trying every run."""
    a, b = cmrc_segments(answer), cmrc_segments(prediction)
    runs = {tuple(b[i:j]) for i in range(len(b)) for j in range(i + 1, len(b) + 1)}
    run = max((j - i for i in range(len(a)) for j in range(i + 1, len(a) + 1) if tuple(a[i:j]) in runs), default=0)
    return 2 * run / (len(a) + len(b)) if run else 0.0


def cmrc():
    kinds = ["chinese", "all", "odd"]
    texts = [text(RNG.choice(kinds), 10) for _ in range(150)] + ODD
    texts += [f"在{odd}中" for odd in ODD] + ['说 "hello world." (ok.)', '"end."', "end.')", "it's 5 o'clock, isn't it"]
    questions = []
    for _ in range(60):
        answers = [text(RNG.choice(kinds), 8) for _ in range(RNG.randint(1, 3))]
        prediction = perturbed(RNG.choice(answers)) if RNG.random() < 0.8 else text()
        f1 = max(cmrc_f1(answer, prediction) for answer in answers)
        exact = any(cmrc_plain(answer) == cmrc_plain(prediction) for answer in answers)
        questions.append(dict(answers=answers, prediction=prediction, f1=f1, exact=exact))
    return dict(segments=[[t, cmrc_segments(t)] for t in texts], questions=questions)


def corpora():
    """Hypotheses with one or more references each; in some a segment lacks references that others have."""
    for index in range(16):
        kind = ["plain", "odd", "chinese", "all"][index % 4]
        size, streams = RNG.choice([1, 1, 3, 8]), RNG.choice([1, 1, 2, 3])
        references = [[text(kind)] for _ in range(size)]
        for segment in references:
            segment += [perturbed(segment[0]) for _ in range(streams - 1)]
        if index % 5 == 4:
            references[0] = references[0][:1]
        hypotheses = [perturbed(RNG.choice(segment)) for segment in references]
        yield hypotheses, references
    for hypothesis, reference in [("", "a b"), ("a b", ""), ("", ""), ("x y", "a b"), ("a", "a"), ("a b c", "a b d")]:
        yield [hypothesis], [[reference]]
    # A third and a sixteenth: what is printed ends in a 5.
    yield ["a b c d e f g h i j k l m n o p"], [["a z b y c x d w e f v u t s r q"]]


def streams(references):
    longest = max(map(len, references))
    return [[segment[i] if i < len(segment) else None for segment in references] for i in range(longest)]


def version_free(signature):
    return signature.rpartition("|version:")[0]


def bleu():
    smoothings = [("none", None), ("floor", 0.1), ("floor", 0.5), ("floor", 0.0), ("add-k", 1.0), ("add-k", 0.25)]
    smoothings += [("add-k", 0.0), ("exp", None), ("exp", None)]
    cases = []
    for hypotheses, references in corpora():
        scores = []
        for _ in range(9):
            tokenizer = RNG.choice(["13a", "13a", "intl", "zh", "char", "none"])
            method, value = RNG.choice(smoothings)
            options = dict(tokenizer=tokenizer, lowercase=RNG.random() < 0.4, smoothing=dict(kind=method))
            options |= dict(effective_order=RNG.random() < 0.5, max_order=RNG.choice([4, 4, 4, 1, 2, 6]))
            metric = BLEU(
                lowercase=options["lowercase"],
                tokenize=tokenizer,
                smooth_method=method,
                smooth_value=value,
                max_ngram_order=options["max_order"],
                effective_order=options["effective_order"],
            )
            if value is not None:
                options["smoothing"]["value"] = value
            score = metric.corpus_score(hypotheses, streams(references))
            expected = dict(score=score.score, precisions=score.precisions, bp=score.bp)
            expected |= dict(sys_len=score.sys_len, ref_len=score.ref_len, text=str(score))
            if method != "add-k":  # which is added to the counts that it returns
                expected |= dict(counts=score.counts, totals=score.totals)
            expected["signature"] = version_free(str(metric.get_signature()))
            scores.append(dict(options=options, **expected))
        cases.append(dict(hypotheses=hypotheses, references=references, scores=scores))
    texts = [text() for _ in range(110)] + ODD + [text("odd", 40) for _ in range(20)] + ["5. 6,7 8.", "a.b,c", "1-2-3-"]
    names = ["13a", "zh", "char", "intl", "none"]
    tokenizers = {name: BLEU(tokenize=name).tokenizer for name in names}
    tokenized = [[t, *([" ".join(tokenizers[name](t.rstrip()).split()) for name in names])] for t in texts]
    return dict(cases=cases, tokenizers=names, tokenized=tokenized)


def chrf():
    cases = []
    for hypotheses, references in corpora():
        scores = []
        for index in range(6):
            options = dict(char_order=6, word_order=[0, 2][index % 2], beta=2, lowercase=False, whitespace=False)
            options["eps_smoothing"] = False
            if index >= 2:
                options |= dict(lowercase=RNG.random() < 0.5, whitespace=RNG.random() < 0.5)
                options |= dict(eps_smoothing=RNG.random() < 0.5, beta=RNG.choice([1, 2, 3]))
                options |= dict(char_order=RNG.choice([1, 6, 6, 8]), word_order=RNG.choice([0, 1, 2, 3]))
            metric = CHRF(**options)
            score = metric.corpus_score(hypotheses, streams(references))
            signature = version_free(str(metric.get_signature()))
            scores.append(dict(options=options, score=score.score, text=str(score), signature=signature))
        cases.append(dict(hypotheses=hypotheses, references=references, scores=scores))
    return cases


def rouge():
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL"]
    scorer, cases = RougeScorer(kinds), []
    for _ in range(40):
        references = [text(RNG.choice(["plain", "odd", "all"])) for _ in range(RNG.randint(1, 3))]
        summary = perturbed(RNG.choice(references))
        case = dict(references=references, summary=summary)
        case["first"] = [rows(scorer.score(references[0], summary)[kind]) for kind in kinds]
        case["best"] = [rows(scorer.score_multi(references, summary)[kind]) for kind in kinds]
        cases.append(case)
    return cases


def main():
    sections = [classification, multilabel, top_k, regression, entities, squad, cmrc, bleu, chrf, rouge]
    # A line for each section, so that a change of one shows as one.
    lines = [f'"{f.__name__}": {json.dumps(f(), ensure_ascii=True, separators=(",", ":"))}' for f in sections]
    Path(__file__).with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
