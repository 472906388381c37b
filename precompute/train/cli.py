"""``train STEP``: the steps from a text corpus to a pair; those on samples are in ``cli_rl``.

Knows the arguments of each step and their defaults, which are those of the shipped pair. Knows
nothing else. The decision a reader would question: several commands instead of one, because each is
resumable by itself and the two runs can share a machine side by side.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from nla_core.errors import EXIT_OK, NLAError
from nla_core.models.checkpoints import DEFAULT_TARGET
from precompute.output import say, write_result
from precompute.train import cli_rl
from precompute.train.teachers import STRUCTURED, confirm_on_terminal, from_arguments
from precompute.train.teachers import add_arguments as add_teacher

HELP = (
    "Train an NLA pair for a small model. `data` makes labelled vectors from text, without any "
    "language model unless --teacher names one; `annotate` gets notes on texts to label them with; "
    "`ar` and `av` train the halves by LoRA; `expert` "
    "samples explanations and keeps the best to train on; all go on where they were stopped when "
    "repeated; `assemble` writes the pair; `all` runs a whole config. Record its test set "
    "next (`testset`), then measure it (`eval`)."
)
EXAMPLE = (
    "python -m precompute train data --corpus train.jsonl --out runs/data\n"
    "  python -m precompute train ar --data runs/data --out runs/ar\n"
    "  python -m precompute train av --data runs/data --out runs/av\n"
    "  python -m precompute train assemble --ar runs/ar --av runs/av --out data/nla/my-pair"
)
DEFAULTS = {
    "ar": {"steps": 340, "lr": 3e-4, "batch": 32},
    "av": {"steps": 660, "lr": 2e-3, "batch": 16},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", metavar="STEP", required=True)
    data = steps.add_parser("data", help="cut windows, trace the target, write labels")
    data.add_argument(
        "--corpus",
        required=True,
        help=".jsonl(.xz), .txt, .parquet, a folder of them, or a hub's data set OWNER/NAME",
    )
    data.add_argument("--text-column", metavar="NAME", help="of a table (found where it is clear)")
    data.add_argument("--max-documents", type=int, metavar="N", help="read no more than these")
    data.add_argument("--out", type=Path, required=True)
    data.add_argument("--ar-windows", type=int, default=450)
    data.add_argument("--av-windows", type=int, default=1000)
    data.add_argument("--rl-windows", type=int, default=300, help="for `expert` and `grpo`")
    data.add_argument("--val-windows", type=int, default=60)
    data.add_argument("--max-tokens", type=int, default=256, help="longest window (256)")
    data.add_argument("--per-window", type=int, default=16, help="positions read of each (16)")
    data.add_argument("--seed", type=int, default=0)
    add_teacher(data)
    _add_annotate(steps)
    for role in ("ar", "av"):
        run = steps.add_parser(role, help=f"train the {role.upper()}, or go on with it")
        run.add_argument("--data", type=Path, required=True, help="folder of `train data`")
        run.add_argument("--out", type=Path, required=True)
        run.add_argument("--steps", type=int, default=DEFAULTS[role]["steps"])
        run.add_argument("--lr", type=float, default=DEFAULTS[role]["lr"])
        run.add_argument("--batch-size", type=int, default=DEFAULTS[role]["batch"])
        run.add_argument("--rank", type=int, default=32)
        run.add_argument("--injection-scale", type=float, default=1000.0)
        run.add_argument("--marker", default="<empty_output>", help="a rare single token")
        run.add_argument("--validate-every", type=int, default=100)
        run.add_argument("--minutes", type=float, default=math.inf, help="stop (resumably) after")
        run.add_argument("--seed", type=int, default=0)
        if role == "ar":
            run.add_argument(
                "--drop-parts",
                type=float,
                default=0.0,
                metavar="P",
                help="chance of each part of a label (note, Next:, About:, Text:) to be left out, "
                "so that it learns to read each alone (0)",
            )
        run.add_argument("--split", help=f"name of the examples to train on ({role})")
        run.add_argument("--init-from", type=Path, help="adapter folder to start from")
        _add_model(run)
    _add_model(data)
    both = steps.add_parser("assemble", help="write the pair's folder from two runs")
    both.add_argument("--ar", type=Path, required=True)
    both.add_argument("--av", type=Path, required=True)
    both.add_argument("--out", type=Path, required=True)
    both.add_argument(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="best: lowest on validation labels (default: last, right after training on samples)",
    )
    borrow = steps.add_parser(
        "borrow", help="label plain text with the written notes that its vectors agree with"
    )
    borrow.add_argument("--annotated", type=Path, required=True, help="data of an annotated corpus")
    borrow.add_argument("--fresh", type=Path, required=True, help="data of plain text")
    borrow.add_argument("--split", default="av", help="of --fresh (av)")
    borrow.add_argument("--share", type=float, default=0.5, help="kept, the best first (0.5)")
    borrow.add_argument("--out", type=Path, required=True)
    cli_rl.add_steps(steps)
    whole = steps.add_parser("all", help="every step of a config, one after another; resumes")
    whole.add_argument("--config", required=True, help="a name in train/configs, or a YAML file")
    whole.add_argument("--corpus", required=True, help="training text, as for `train data`")
    whole.add_argument("--prompts", nargs="+", default=[], help="held-out prompt files")
    whole.add_argument("--out", type=Path, required=True)
    whole.add_argument("--dry-run", action="store_true", help="print the commands and stop")


def _add_annotate(steps: Any) -> None:
    step = steps.add_parser(
        "annotate",
        help="ask for notes on texts, and make an annotated corpus of the answers",
        description="Notes in three steps. --export writes a question for each mark in the texts "
        "of --corpus. Answer them yourself, elsewhere, or with --answer and a teacher; an answer "
        'is a line {"export": ..., "id": ..., "note": ...}. --import makes the annotated corpus.',
    )
    what = step.add_mutually_exclusive_group(required=True)
    what.add_argument("--export", action="store_true", help="write questions about --corpus")
    what.add_argument("--answer", action="store_true", help="let --teacher answer --questions")
    what.add_argument("--import", dest="answers", type=Path, metavar="ANSWERS", help="answers")
    step.add_argument("--corpus", help="export: as for `train data`, or lines with messages")
    step.add_argument("--questions", type=Path, help="answer, import: what --export wrote")
    step.add_argument("--out", type=Path, required=True)
    step.add_argument("--partial", action="store_true", help="import: some answers may be missing")
    step.add_argument("--text-column", metavar="NAME", help="export: of a table")
    step.add_argument("--max-documents", type=int, metavar="N", help="export: no more than these")
    step.add_argument("--max-tokens", type=int, default=256, help="export: of a text, about (256)")
    step.add_argument("--seed", type=int, default=0, help="export: where the marks are")
    add_teacher(step)
    step.add_argument("--device", default="auto", help="answer: of a local teacher")
    step.add_argument("--dtype", default="auto", help="answer: of a local teacher")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default=DEFAULT_TARGET, help="the model to be explained")
    parser.add_argument("--layer", type=int, default=20, help="K: the block whose output is read")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")


def main(args: argparse.Namespace) -> int:
    if args.step == "data":
        write_result(args, {"counts": _data(args)})
    elif args.step == "annotate":
        write_result(args, {"counts": _annotate(args), "out": str(args.out)})
    elif args.step == "assemble":
        from precompute.train.assemble import assemble

        assemble(args.av, args.ar, args.out, args.checkpoint)
        print(
            f"Wrote {args.out}. Next: python -m precompute testset --nla {args.out} --corpus FILE"
        )
        write_result(args, {"out": str(args.out)})
    elif args.step == "all":
        _all(args)
        write_result(args, {"out": str(args.out)})
    elif args.step == "borrow":
        from nla_core.embed import MiniLM
        from precompute.train.borrow import borrow_notes

        figures = borrow_notes(
            args.annotated,
            args.fresh,
            args.out,
            split=args.split,
            share=args.share,
            embedder=MiniLM(),
        )
        print(", ".join(f"{name} {value}" for name, value in figures.items()))
        write_result(args, figures)
    elif args.step in cli_rl.STEPS:
        write_result(args, cli_rl.main(args))
    else:
        _train(args)
        write_result(args, {"out": str(args.out)})
    return EXIT_OK


def _all(args: argparse.Namespace) -> None:
    from precompute.train.pipeline import plan, run_all

    steps = plan(args.config, out=args.out, corpus=args.corpus, prompts=args.prompts)
    if args.dry_run:
        for step in steps:
            print(step.line)
    else:
        run_all(steps, args.out)


def _data(args: argparse.Namespace) -> dict[str, int]:
    from nla_core.models.checkpoints import load_causal_lm, load_tokenizer, resolve
    from nla_core.models.devices import pick_device, pick_dtype
    from nla_core.models.target import Target
    from precompute.train.corpus import Document
    from precompute.train.data import DataSettings, prepare
    from precompute.train.notes import AnnotatedDocument, is_annotated, read_annotated
    from precompute.train.sources import Reading, check_splits, load_documents

    settings = DataSettings(
        ar_windows=args.ar_windows,
        av_windows=args.av_windows,
        rl_windows=args.rl_windows,
        val_windows=args.val_windows,
        max_tokens=args.max_tokens,
        per_window=args.per_window,
        seed=args.seed,
    )
    teacher = from_arguments(args)
    # What is wrong with the text is told before minutes go into loading models.
    documents: list[Document] | list[AnnotatedDocument]
    if is_annotated(Path(args.corpus)):
        if teacher.kind != STRUCTURED:
            raise NLAError(
                f"{args.corpus} holds its own labels",
                why=f"It is an annotated corpus, and --teacher {teacher.kind} would replace them",
                fix="Leave --teacher out, or give the texts without their notes",
            )
        documents = read_annotated(Path(args.corpus))[: args.max_documents]
    else:
        documents = load_documents(args.corpus, Reading(args.text_column, args.max_documents))
        check_splits(documents, settings.wanted())
    base = resolve(args.target)
    device = pick_device(args.device)
    model = load_causal_lm(base.folder, dtype=pick_dtype(device, args.dtype), device=device)
    return prepare(
        documents,
        base,
        Target(model, load_tokenizer(base.folder), args.layer),
        args.out,
        settings,
        teacher=teacher,
        confirm=lambda forecast: confirm_on_terminal(forecast, yes=args.yes),
    )


def _annotate(args: argparse.Namespace) -> dict[str, int]:
    from precompute.train import annotate
    from precompute.train.choose_teacher import make_writer
    from precompute.train.labels import Idf
    from precompute.train.sources import Reading

    wanted = "corpus" if args.export else "questions"
    if getattr(args, wanted) is None:
        raise NLAError(
            f"--{wanted} is not given",
            why="It names what to ask about" if args.export else "It names what was asked",
            fix=f"Add --{wanted} FILE",
        )
    if args.export:
        texts = annotate.load_texts(args.corpus, Reading(args.text_column, args.max_documents))
        counts = annotate.export(texts, args.out, seed=args.seed, max_tokens=args.max_tokens)
    elif args.answers:
        counts = annotate.import_answers(
            args.answers, args.questions, args.out, partial=args.partial
        )
    else:
        settings = from_arguments(args)
        if settings.kind == STRUCTURED:
            raise NLAError(
                "--answer needs a language model",
                why="The structured teacher writes no notes",
                fix="Add --teacher local or --teacher api, and --teacher-model NAME",
            )
        asked = annotate.read_questions(args.questions)
        todo = annotate.open_questions(asked, args.out)
        ledger = args.out.with_name(f"{args.out.name}.paid")
        writer = make_writer(settings, Idf.fit([]), ledger)
        if todo and (forecast := writer.estimate([len(question.text) for question in todo])):
            confirm_on_terminal(forecast, yes=args.yes)
        counts = annotate.answer(asked, todo, args.out, writer)
        if used := writer.report():
            say(used)
    print(f"Wrote {args.out}: " + ", ".join(f"{n:,} {name}" for name, n in counts.items()))
    return counts


def _train(args: argparse.Namespace) -> None:
    from precompute.train.runs import train_role
    from precompute.train.sft import SftSettings

    train_role(
        args.step,
        base_spec=args.target,
        layer=args.layer,
        data=args.data,
        out=args.out,
        settings=SftSettings(
            steps=args.steps,
            lr=args.lr,
            batch_size=args.batch_size,
            rank=args.rank,
            alpha=2 * args.rank,
            validate_every=args.validate_every,
            seed=args.seed,
            drop_parts=getattr(args, "drop_parts", 0.0),
        ),
        injection_scale=args.injection_scale,
        marker=args.marker,
        device=args.device,
        dtype=args.dtype,
        minutes=args.minutes,
        split=args.split,
        init_from=args.init_from,
    )
