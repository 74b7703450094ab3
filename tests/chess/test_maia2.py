"""Maia-2's architecture: the published shape, illegal moves, hook sites, files."""

from __future__ import annotations

import chess
import numpy as np
import pytest
import torch
from chess_games import random_turns

from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.moves import MOVES
from saeflow.chess.player import io as maia2_io
from saeflow.chess.player.io import embedded_maia2, import_checkpoint, load_maia2, save_maia2
from saeflow.chess.player.maia2 import Maia2, token_mean
from saeflow.chess.player.planes import encode, legal_mask, mask_illegal
from saeflow.chess.player.settings import ChessModel
from saeflow.errors import SaeflowError
from saeflow.models.modules import capture_modules

SHAPE = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=2, heads=2, dim_head=6, dim_elo=4, dim_value=8
)
BLOCK = [
    "0.norm.weight",
    "0.norm.bias",
    "0.to_qkv.weight",
    "0.elo_query.weight",
    "0.to_out.0.weight",
    "0.to_out.0.bias",
]
BLOCK += [f"1.net.{layer}.{kind}" for layer in (0, 1, 4) for kind in ("weight", "bias")]


def random_model(seed: int = 0) -> Maia2:
    torch.manual_seed(seed)
    model = Maia2(SHAPE).eval().requires_grad_(False)
    for name, buffer in model.named_buffers():  # a model that has seen data
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    return model


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def inputs():
    turns = random_turns(40, seed=1)
    boards = read_fens([turn.board.fen() for turn in turns])
    bins = torch.arange(40) % 11
    return encode(boards), bins, bins.flip(0)


def slow_planes(board: chess.Board) -> np.ndarray:
    """The published encoding, square by square."""
    planes = np.zeros((18, 8, 8), np.float32)
    for square, piece in board.piece_map().items():
        planes[
            piece.piece_type - 1 + (0 if piece.color else 6),
            chess.square_rank(square),
            chess.square_file(square),
        ] = 1
    planes[12] = board.turn
    rights = [(side, colour) for colour in (True, False) for side in ("king", "queen")]
    for plane, (side, colour) in enumerate(rights):
        planes[13 + plane] = getattr(board, f"has_{side}side_castling_rights")(colour)
    if board.ep_square is not None:
        planes[17, chess.square_rank(board.ep_square), chess.square_file(board.ep_square)] = 1
    return planes


def test_planes_and_masks_are_those_of_a_slow_reading_of_the_same_texts():
    fens = [turn.board.fen() for turn in random_turns(3000, seed=2)]
    boards = read_fens(fens)
    planes, legal = encode(boards), legal_mask(boards)
    for fen, plane, row in zip(fens, planes, legal, strict=True):
        board = chess.Board(fen)
        board = board if board.turn else board.mirror()
        assert np.array_equal(plane.numpy(), slow_planes(board))
        assert {MOVES[index] for index in row.nonzero()[:, 0]} == {
            move.uci() for move in board.legal_moves
        }


def test_an_illegal_move_is_never_chosen_in_10000_positions():
    """By the model whose every raw logit is below zero, which multiplication with the mask would
    betray."""
    turns = random_turns(10_000, seed=3)
    boards = read_fens([turn.board.fen() for turn in turns])
    draw = torch.Generator().manual_seed(0)
    logits = -torch.rand(len(turns), len(MOVES), generator=draw) - 1
    chosen = mask_illegal(logits, legal_mask(boards)).argmax(dim=1)
    assert all(
        chess.Move.from_uci(MOVES[index]) in turn.seen.legal_moves
        for index, turn in zip(chosen, turns, strict=True)
    )
    probabilities = mask_illegal(logits[:100], legal_mask(boards)[:100]).softmax(dim=1)
    assert probabilities[~legal_mask(boards)[:100]].max() == 0
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(100))


def test_a_finished_game_has_no_move_to_choose():
    boards = read_fens(["7k/6Q1/6K1/8/8/8/8/8 b - - 0 1"])
    with pytest.raises(SaeflowError, match="position 0 has no legal move"):
        mask_illegal(torch.zeros(1, 1880), legal_mask(boards))


def test_the_published_shape_has_the_published_parameters():
    with torch.device("meta"):
        names = {
            name: tuple(tensor.shape) for name, tensor in Maia2(ChessModel()).state_dict().items()
        }
    assert names["chess_cnn.conv1.weight"] == (256, 18, 3, 3)
    assert names["chess_cnn.layers.4.bn2.running_var"] == (256,)
    assert names["chess_cnn.conv_last.weight"] == (8, 256, 3, 3)
    assert names["to_patch_embedding.0.weight"] == (1024, 64)
    assert names["pos_embedding"] == (1, 8, 1024)
    assert names["transformer.elo_layers.1.0.elo_query.weight"] == (1024, 256)
    assert names["fc_1.weight"] == (1880, 1024)
    assert names["fc_2.weight"] == (2021, 1024)
    assert names["fc_3.weight"] == (1, 128)
    assert names["elo_embedding.weight"] == (11, 128)
    blocks = [name for name in names if name.startswith("transformer.elo_layers.")]
    assert sorted(blocks) == sorted(
        f"transformer.elo_layers.{block}.{name}" for block in (0, 1) for name in BLOCK
    )
    assert not any("blocks." in name for name in names)


def test_hook_sites_are_what_their_names_say(model, inputs):
    attention, feed_forward = model.transformer.elo_layers[1]
    hooks = {site: f"blocks.1.{site}" for site in ("attn", "attn_out", "mlp", "resid_post")}
    read = capture_modules(model, inputs, ["blocks.0.resid_post", *hooks.values()])
    before = read["blocks.0.resid_post"]
    assert read[hooks["attn"]].shape == (40, 8, SHAPE.heads * SHAPE.dim_head)
    assert torch.allclose(read[hooks["attn_out"]], attention.to_out(read[hooks["attn"]]))
    middle = before + read[hooks["attn_out"]]
    assert torch.allclose(read[hooks["mlp"]], feed_forward(middle), atol=1e-6)
    assert torch.allclose(read[hooks["resid_post"]], middle + read[hooks["mlp"]], atol=1e-6)


def test_what_a_hook_returns_flows_on(model, inputs):
    clean = model(*inputs).moves
    handle = model.blocks[1]["resid_post"].register_forward_hook(
        lambda _module, _inputs, output: output.flip(-1)
    )
    changed = model(*inputs).moves
    handle.remove()
    assert not torch.allclose(clean, changed, atol=1e-3)
    assert torch.equal(model(*inputs).moves, clean)


def test_the_ratings_of_both_players_matter(model, inputs):
    planes, own, other = inputs
    clean = model(planes, own, other).moves
    assert not torch.allclose(model(planes, (own + 1) % 11, other).moves, clean, atol=1e-5)
    assert not torch.allclose(model(planes, own, (other + 1) % 11).moves, clean, atol=1e-5)


def test_the_token_mean_is_the_mean_of_the_tokens():
    tokens = torch.arange(24.0).reshape(1, 8, 3)
    assert token_mean(tokens).tolist() == [[[10.5, 11.5, 12.5]]]


def test_a_saved_model_is_the_same_model(model, inputs, tmp_path):
    save_maia2(tmp_path / "model", model, {"seed": 0})
    again = load_maia2(tmp_path / "model")
    assert torch.equal(again(*inputs).moves, model(*inputs).moves)
    assert not again.training
    save_maia2(tmp_path / "half", model, {}, dtype=torch.float16)
    half = load_maia2(tmp_path / "half")
    assert torch.allclose(half(*inputs).moves, model(*inputs).moves, atol=2e-2)
    assert half.fc_1.weight.dtype == torch.float32


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_official_checkpoint_is_read_strictly(model, inputs, prefix, wrapped, tmp_path):
    weights = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    path = tmp_path / "weights.v2.pt"
    torch.save({"model_state_dict": weights, "epoch": 3} if wrapped else weights, path)
    assert torch.equal(import_checkpoint(path, SHAPE)(*inputs).moves, model(*inputs).moves)


def test_a_checkpoint_of_another_shape_is_refused_by_name(model, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    with pytest.raises(
        SaeflowError, match=r"'\S+' is \(\d.*\), and a model of this shape has .*model.shape"
    ):
        import_checkpoint(path, SHAPE.model_copy(update={"dim_cnn": 16}))
    weights = model.state_dict()
    del weights["fc_3.bias"]
    torch.save(weights, path)
    with pytest.raises(SaeflowError, match=r"'fc_3.bias' is absent"):
        import_checkpoint(path, SHAPE)


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_a_checkpoint_that_would_execute_something_is_refused(tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save({"model_state_dict": Payload()}, path)
    with pytest.raises(SaeflowError, match="holds more than tensors"):
        import_checkpoint(path, SHAPE)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_a_damaged_checkpoint_is_told_in_a_sentence(content, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(SaeflowError, match=r"weights\.pt: is no checkpoint"):
        import_checkpoint(path, SHAPE)
    with pytest.raises(SaeflowError, match="no such file"):
        import_checkpoint(tmp_path / "absent.pt", SHAPE)
    with pytest.raises(SaeflowError, match=r"config\.json"):
        load_maia2(tmp_path)


def test_what_is_fetched_must_have_the_recorded_checksum(tmp_path, monkeypatch):
    import hashlib
    import http.server
    import threading

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"weights")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    good, bad = hashlib.sha256(b"weights").hexdigest(), "0" * 64
    monkeypatch.setattr(
        maia2_io,
        "PUBLISHED",
        {"rapid": maia2_io.Published(url, good), "blitz": maia2_io.Published(url, bad)},
    )
    maia2_io.fetch_checkpoint("rapid", tmp_path / "rapid.pt")
    assert (tmp_path / "rapid.pt").read_bytes() == b"weights"
    with pytest.raises(SaeflowError, match="has the checksum"):
        maia2_io.fetch_checkpoint("blitz", tmp_path / "blitz.pt")
    assert not (tmp_path / "blitz.pt").exists()
    server.shutdown()
    server.server_close()
    with pytest.raises(SaeflowError, match="cannot be fetched"):
        maia2_io.fetch_checkpoint("rapid", tmp_path / "again.pt")


@pytest.mark.skipif(not embedded_maia2().is_dir(), reason="the embedded model is not there")
def test_the_embedded_model_is_small_and_plays_legal_moves():
    folder = embedded_maia2()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_100_000
    model = load_maia2(folder)
    turns = random_turns(200, seed=5)
    boards = read_fens([turn.board.fen() for turn in turns])
    bins = torch.full((200,), 5)
    chosen = mask_illegal(model(encode(boards), bins, bins).moves, legal_mask(boards)).argmax(dim=1)
    assert all(
        chess.Move.from_uci(MOVES[index]) in turn.seen.legal_moves
        for index, turn in zip(chosen, turns, strict=True)
    )
